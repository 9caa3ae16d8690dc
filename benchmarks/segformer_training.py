"""SegFormer-B0 trained from scratch on a labelled folder, for a given time.

    python benchmarks/segformer_training.py [--minutes 45] [--out runs/segformer/trained.safetensors]

The first 0.7 of the time goes to images of half the height and width, which cost a quarter. Needs `../shared/camvid`.
The weights are written whenever they are better on the validation images; at the end the network, too, as `.pt2`.
"""

from __future__ import annotations

import argparse
import math
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from architectures.segformer import Head, SegFormer
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

import slimseg
from slimseg.training import memory
from slimseg.training.batches import Batches
from slimseg.training.data import Folder, open_folder
from slimseg.training.losses import cross_entropy, lovasz_softmax

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
SIZE = (192, 256)
SMALL_SHARE, WARM_UP, RATE = 0.7, 0.05, 1e-3
EVALUATE_EVERY_S = 360.0


class EarlyHead(Head):
    """The head with its weights multiplied: it projects every stage once, before enlarging it, to the same values.

    This takes a tenth of the operations, so that twice as many steps fit into the time.
    """

    def forward(self, maps: list[Tensor]) -> Tensor:
        mixed, normalise, activate = self.fuse
        found = []
        for linear, weight, x in zip(self.linears, mixed.weight.flatten(1).chunk(4, 1)[::-1], maps, strict=True):
            projected = F.conv2d(x, (weight @ linear.weight)[..., None, None], weight @ linear.bias)
            found.append(F.interpolate(projected, size=maps[0].shape[2:], mode="bilinear", align_corners=False))
        return self.classifier(self.dropout(activate(normalise(sum(found)))))


class Quick(SegFormer):
    """The network during training: the same weights, with logits at a quarter of the size, in less time."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.head.__class__ = EarlyHead

    def forward(self, x: Tensor) -> Tensor:
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return self.head(maps)


def network(weights: dict[str, Tensor], classes: int) -> SegFormer:
    module = SegFormer(classes).eval()
    module.load_state_dict(weights)
    return module


def opened(weights: dict[str, Tensor], folder: Folder, size: tuple[int, int] = SIZE) -> slimseg.Graph:
    graph = slimseg.load(network(weights, len(folder.classes)), input_size=size, mean=127, std=128)
    graph.description = slimseg.Description(graph.description.preprocessing, tuple(folder.classes))
    return graph


def train(folder: Folder, minutes: float, weights: Path) -> None:
    """Trains for `minutes`; the weights that were best on the validation images are kept in `weights`."""
    memory.keep_freed()
    torch.manual_seed(0)
    module = Quick(len(folder.classes))
    optimiser = torch.optim.AdamW(module.parameters(), RATE, weight_decay=0.01, fused=True)
    batches = {True: _batches(module, folder, (SIZE[0] // 2, SIZE[1] // 2)), False: _batches(module, folder, SIZE)}
    start = seen = time.monotonic()
    best, steps = 0.0, 0
    while (done := (time.monotonic() - start) / (60 * minutes)) < 1:
        for group in optimiser.param_groups:
            group["lr"] = RATE * min(done / WARM_UP, 0.5 + 0.5 * math.cos(math.pi * done))
        _step(module.train(), optimiser, next(batches[done < SMALL_SHARE]))
        steps += 1
        if time.monotonic() - seen > EVALUATE_EVERY_S:
            best, seen = _kept_if_better(module, folder, weights, best, steps), time.monotonic()
    _kept_if_better(module, folder, weights, best, steps)


def _batches(module: nn.Module, folder: Folder, size: tuple[int, int]) -> Iterator:
    return iter(Batches(opened(module.state_dict(), folder, size), folder, True, 0, size))


def _step(module: nn.Module, optimiser: torch.optim.Optimizer, batch) -> None:
    logits, masks = module(batch.images), batch.masks[:, 2::4, 2::4]
    loss = cross_entropy(logits, masks) + 0.5 * lovasz_softmax(logits, masks)
    optimiser.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(module.parameters(), 1.0)
    optimiser.step()


def _kept_if_better(module: nn.Module, folder: Folder, weights: Path, best: float, steps: int) -> float:
    miou = slimseg.evaluate(opened(module.state_dict(), folder), images=folder).miou
    print(f"{steps} steps: mIoU {miou:.2f}", flush=True)
    if miou > best:
        weights.parent.mkdir(parents=True, exist_ok=True)
        save_file(module.state_dict(), weights, {"miou": f"{miou:.2f}", "steps": str(steps)})
    return max(miou, best)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=45)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "segformer" / "trained.safetensors")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    folder = open_folder(SHARED / "camvid")
    train(folder, options.minutes, options.out)
    opened(load_file(options.out), folder).save(options.out.with_suffix(".pt2"))


if __name__ == "__main__":
    main()
