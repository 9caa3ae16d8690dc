"""Compares the masks of an exported file with those of its source network, on the same images.

Each file runs as in an app, from RGB bytes to a mask of the image's size; the network itself runs in PyTorch, with the
same preprocessing. A float file may differ only by rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from slimseg.errors import SlimsegError
from slimseg.exporting import bisection
from slimseg.graph.graph import Graph
from slimseg.graph.orders import nchw, nhwc
from slimseg.graph.output import class_count
from slimseg.planning.pricing.probes import probe_images
from slimseg.results import Departure, Parity
from slimseg.runtimes import host, registry
from slimseg.training.data import IGNORED, Pixels, Split, read_pair
from slimseg.training.doubts import Seen
from slimseg.training.metrics import Confusion

FLOAT_TOLERANCE_PERCENT = 0.5  # percentage of differing pixels above which a float file is wrong
DRAWN = 6  # number of synthetic images if the user gives none


class Reference:
    """A network's own masks on some images, and their mIoU.

    Args:
        graph: the network that the compared files compute.
        split: the user's images, with or without masks; None for synthetic images.
        count: the most images that are used, spread evenly over the split.

    Raises:
        DataError: an image or mask cannot be used.
    """

    def __init__(self, graph: Graph, split: Split | None, count: int) -> None:
        self.graph = graph
        self.classes = class_count(graph)
        self.names, pairs = _drawn(graph) if split is None else _chosen(split, count, self.classes or None)
        self.images = [image for image, _ in pairs]
        self.truths = [truth for _, truth in pairs]
        self.masks = [_mask(graph, image) for image in self.images]
        self.drawn = split is None

    def doubts(self, names: Sequence[str]) -> tuple[str, ...]:
        """Reasons to doubt the network's masks of the user's images, in sentences; empty for synthetic images."""
        seen = Seen(self._classes(self.masks))
        for mask, truth in zip(self.masks, self.truths, strict=True):
            seen.add(mask, truth)
        return () if self.drawn else seen.doubts(self.graph.description, names)

    @property
    def miou(self) -> float | None:
        """mIoU of the network itself; None without labels."""
        return self.score(self.masks)

    def score(self, masks: Sequence[Pixels]) -> float | None:
        """mIoU of masks of the same images; None without labels."""
        truths = [truth for truth in self.truths if truth is not None]
        if not truths:
            return None
        confusion = Confusion(self._classes(masks))
        for mask, truth in zip(masks, truths, strict=True):
            confusion.add(mask, truth)
        return confusion.scores().miou if confusion.matrix.any() else None

    def _classes(self, masks: Sequence[Pixels]) -> int:
        truths = [truth for truth in self.truths if truth is not None]
        highest = max(int(each[each != IGNORED].max(initial=0)) for each in (*masks, *truths))
        return max(2, self.classes, highest + 1)


def compare(reference: Reference, path: Path, is_float: bool = True) -> Parity:
    """Run a file on the reference's images and compare its masks.

    Args:
        is_float: whether the file computes in floating point, so that more than 0.5% differing pixels are a failure.

    Raises:
        Unsupported: the file cannot run on this machine: its runtime is not installed, or is one of another system.
        ModelError: the file is damaged.
        RuntimeFailure: its runtime refused it.
    """
    masks = masks_of(path, reference.images)
    differing = [100 * float((mask != own).mean()) for mask, own in zip(masks, reference.masks, strict=True)]
    sizes = [mask.size for mask in masks]
    disagreement, worst = float(np.average(differing, weights=sizes)), int(np.argmax(differing))
    failed = is_float and disagreement > FLOAT_TOLERANCE_PERCENT
    return Parity(
        file=path.name,
        runtime=registry.of(path).name,
        images=len(masks),
        disagreement_percent=disagreement,
        worst_image=reference.names[worst],
        worst_disagreement_percent=differing[worst],
        miou=reference.score(masks),
        failed=failed,
        departure=_departure(reference, path, worst) if failed else None,
    )


def masks_of(path: Path, images: Sequence[Pixels]) -> list[Pixels]:
    """An app's masks of RGB images (height, width, 3) of any size; each mask has the size of its image.

    Raises:
        Unsupported, ModelError, RuntimeFailure: as `compare`.
    """
    its = registry.running(path)
    app, result = host.App(its.read(path)), []
    for image in images:
        (output,) = its.predict(path, app.prepare(image)[None])
        result.append(app.mask(output, (image.shape[0], image.shape[1])))
    return result


def _departure(reference: Reference, path: Path, index: int) -> Departure | None:
    """The first layer that departs; None if it cannot be determined."""
    try:
        return bisection.first_departure(reference.graph, path, reference.images[index])
    except SlimsegError:
        return None


def _drawn(graph: Graph) -> tuple[list[str], list[tuple[Pixels, Pixels | None]]]:
    images = probe_images(graph.input_size, DRAWN - 2)
    return [f"drawn {number}" for number in range(len(images))], [(image, None) for image in images]


def _chosen(split: Split, count: int, classes: int | None) -> tuple[list[str], list[tuple[Pixels, Pixels | None]]]:
    total = len(split.images)
    indices = [int(index) for index in np.linspace(0, total - 1, min(count, total)).round()]
    return [split.images[index].name for index in indices], [read_pair(split, index, classes) for index in indices]


def _mask(graph: Graph, image: Pixels) -> Pixels:
    """The network's own mask, in the size of the image."""
    pipeline = host.ImagePipeline(graph.description.preprocessing, graph.input_size)
    with torch.inference_mode():
        output = graph(nchw(pipeline(image)[None]))
    value = nhwc(output)
    scores = host.in_rows(value.numpy()[0], graph.input_size, graph.name)
    return host.to_mask(scores, (image.shape[0], image.shape[1]), graph.description.output_kind)
