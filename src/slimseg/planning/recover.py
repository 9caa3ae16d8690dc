"""How long to train what: the recipe that brings an edited network back to its accuracy within the time there is."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from slimseg.graph import edit
from slimseg.graph.graph import Graph
from slimseg.graph.preprocessing import Preprocessing
from slimseg.planning.budget import Budget
from slimseg.planning.plan import Plan
from slimseg.planning.scores import logits_of
from slimseg.planning.whatif import end_of_part
from slimseg.progress import Progress
from slimseg.runtimes.host import resize_image
from slimseg.training import augment, distil
from slimseg.training.data import Folder, read_pair, resized_mask
from slimseg.training.loop import Schedule, train

BATCH_SIZE = 8
MIMIC_STEPS, DISTIL_STEPS = 150, 700
MIMIC_SHARE = 0.2  # of the time, at most


def recover(
    original: Graph,
    student: Graph,
    plan: Plan,
    folder: Folder,
    budget: Budget,
    until: float,
    seed: int,
    progress: Progress,
    checkpoints: Path | None = None,
) -> None:
    """Train `student` in place: new blocks mimic the old ones, then all that follows the first edit is distilled.

    What comes before the first new block stays frozen, and is computed once for teacher and student.

    Args:
        until: `time.monotonic()` after which to stop.
    """
    torch.manual_seed(seed)
    teacher = (
        edit.at_input_size(original, student.input_size)
        if student.input_size != original.input_size
        else original.copy()
    )
    for parameter in teacher.module.parameters():
        parameter.requires_grad_(False)
    teacher.module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    teacher, student = logits_of(teacher), logits_of(student)  # the caller's student shares the layers
    pairs = _pairs(teacher, student, plan)
    with_labels = budget.allows("labels") and folder.train.masks is not None
    batches = Batches(student, folder, with_labels, seed)
    if pairs:
        new = {node.name for node in student.layers()} - {node.name for node in teacher.layers()}
        new |= {layer for planned in plan.edits for layer in planned.site.layers}
        distil.freeze_except(student, lambda layer: layer in new)
        steps = Schedule(MIMIC_STEPS, time_limit_s=MIMIC_SHARE * max(0.0, until - time.monotonic()))
        loss = distil.mimic_loss(teacher, student, pairs)
        train(student.module, loss, iter(batches), steps, progress, "mimicking blocks", _in(checkpoints, "mimic"), seed)
    changed = _after_first_edit(student, pairs)
    distil.freeze_except(student, lambda layer: layer in changed)
    steps = Schedule(DISTIL_STEPS, time_limit_s=max(0.0, until - time.monotonic()))
    loss = distil.distil_loss(teacher, student, [pair.target for pair in pairs], distil.Weights())
    train(student.module, loss, iter(batches), steps, progress, "distilling", _in(checkpoints, "distil"), seed)


def _in(folder: Path | None, name: str) -> Path | None:
    return folder / f"{name}.ckpt" if folder else None


def _pairs(teacher: Graph, student: Graph, plan: Plan) -> list[distil.BlockPair]:
    """One per approximated block; exact edits have nothing to learn.

    A block whose result a later exact edit moved (a resize put behind the classifier) has no counterpart any more
    and learns with the whole.
    """
    kept = {node.name for node in student.module.graph.nodes}
    approximated = (
        planned.site for planned in plan.edits if planned.site.needs != "nothing" and not planned.site.whole
    )
    pairs = [distil.BlockPair(site.source, end_of_part(teacher, site.target)) for site in approximated]
    return [pair for pair in pairs if pair.source in kept and pair.target in kept]


def _after_first_edit(student: Graph, pairs: list[distil.BlockPair]) -> set[str]:
    """Layers that compute from a replaced block, and the blocks' own; every layer where only the input changed."""
    if not pairs:
        return {node.name for node in student.layers()}
    names: set[str] = set()
    starts = {pair.source for pair in pairs}
    for node in student.layers():
        if any(source.name in names or source.name in starts for source in node.all_input_nodes):
            names.add(node.name)
    return {str(student.node(name).target) for name in names}


class Batches:
    """Endless preprocessed, augmented batches of training images at the student's input size, kept in memory."""

    def __init__(self, graph: Graph, folder: Folder, with_labels: bool, seed: int) -> None:
        self.preprocessing = graph.description.preprocessing
        size = graph.input_size
        images, masks = [], []
        for index in range(len(folder.train.images)):
            image, mask = read_pair(folder.train, index)
            images.append(resize_image(image, size))
            if with_labels and mask is not None:
                masks.append(resized_mask(mask, size))
        self.images = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
        self.masks = torch.from_numpy(np.stack(masks)).long() if masks else None
        self.augment = augment.augmentation(size)
        # under `torchrun` every process draws its own
        self.generator = torch.Generator().manual_seed(seed + int(os.environ.get("RANK", "0")))

    def __iter__(self) -> Iterator[distil.Batch]:
        while True:
            order = torch.randperm(len(self.images), generator=self.generator)
            for chosen in torch.split(order, BATCH_SIZE):
                masks = None if self.masks is None else self.masks[chosen]
                images, masks = augment.apply(self.augment, self.images[chosen].float() / 255, masks)
                yield preprocess(images, self.preprocessing), masks


def preprocess(images: Tensor, preprocessing: Preprocessing) -> Tensor:
    """RGB (N, 3, H, W) in [0, 1] to the network's input."""
    ordered = images.flip(1) if preprocessing.channel_order == "bgr" else images
    mean, std = (
        torch.tensor(values, dtype=images.dtype).reshape(1, 3, 1, 1)
        for values in (preprocessing.mean, preprocessing.std)
    )
    return ((255 * ordered - mean) / std).contiguous(memory_format=torch.channels_last)
