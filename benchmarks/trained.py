"""Small networks of `slimseg.models`, trained from scratch as a user would train any nn.Module."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from slimseg.graph.graph import Graph
from slimseg.models import Block, build
from slimseg.training.batches import Batches
from slimseg.training.data import Folder

SIZE = (96, 128)
STEPS, RATE = 1500, 5e-3  # about a minute of one core


def trained(folder: Folder, block: Block, steps: int = STEPS) -> Graph:
    """On a labelled folder, by cross-entropy alone; `block` is what its encoder is made of."""
    torch.manual_seed(0)
    graph = build(folder.classes, SIZE, block, 1.0, mean=127, std=128)
    batches = iter(Batches(graph, folder, True, 0, SIZE))
    module = graph.module.train()
    optimiser = torch.optim.AdamW(module.parameters(), RATE, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps)
    for _ in range(steps):
        batch = next(batches)
        loss = F.cross_entropy(module(batch.images), batch.masks, ignore_index=255)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    module.eval()
    return graph
