"""A processor's masks beside those that the CPU makes with the same file.

What differs, from which layer on, and which values do not fit the float16 in which phones compute.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from slimseg.errors import SlimsegError, UserError
from slimseg.exporting.parity import FLOAT_TOLERANCE_PERCENT
from slimseg.frontends import load, opens
from slimseg.graph.description import Description
from slimseg.graph.orders import nchw
from slimseg.results import BesideCPU, Departure
from slimseg.runtimes import half_range, host, registry
from slimseg.runtimes.processor import Processor
from slimseg.training.data import Pixels
from slimseg.training.doubts import Seen
from slimseg.training.metrics import Confusion

LOOKED_AT = 8  # images on which layers beyond float16 are looked for
Predictions = Iterator[tuple[Pixels, Pixels | None, Pixels]]  # image, label, mask


def compare(
    processor: Processor, path: Path, description: Description, classes: int, runs: Iterable[Predictions]
) -> tuple[Seen, BesideCPU]:
    """What a processor's masks are, and how they differ from the CPU's.

    Args:
        runs: the predictions of the processor and those of the CPU, on the same images.

    Raises:
        UserError: the processor cannot compute on this machine.
        RuntimeFailure: it refused the file, or crashed.
    """
    if not processor.computes:
        raise UserError(f"{processor.title} cannot compute on this machine: {processor.missing()}")
    seen, own, shares = Seen(classes), Confusion(classes), []
    images: list[Pixels] = []
    worst: Pixels | None = None
    for (image, truth, mask), (_, _, cpu) in zip(*runs, strict=True):
        seen.add(mask, truth)
        shares.append((100 * float((mask != cpu).mean()), mask.size))
        worst = image if shares[-1] == max(shares) else worst
        if len(images) < LOOKED_AT:
            images.append(image)
        if truth is not None:
            own.add(cpu, truth)
    changed, sizes = zip(*shares, strict=True)
    average = float(np.average(changed, weights=sizes))
    departs = average > FLOAT_TOLERANCE_PERCENT and worst is not None
    return seen, BesideCPU(
        cpu_miou=own.scores().miou,
        changed_percent=average,
        worst_changed_percent=max(changed),
        departure=_departure(processor, path, description, worst) if departs and worst is not None else None,
        beyond_half=_beyond_half(path, images) if processor.halves else (),
    )


def _departure(processor: Processor, path: Path, description: Description, image: Pixels) -> Departure | None:
    """The first layer that departs; None if it cannot be determined."""
    prepared = host.App(registry.of(path).read(path), description).prepare(image)
    try:
        return processor.first_departure(path, prepared[None])
    except SlimsegError:
        return None


def _beyond_half(path: Path, images: list[Pixels]) -> tuple[str, ...]:
    """Layers of a float file with values that float16 cannot hold; none for a file that does not open as a network."""
    its = registry.of(path)
    if its.precision(path) == "int8" or not opens(path):
        return ()
    try:
        graph = load(path, verify=False)
        pipeline = host.ImagePipeline(graph.description.preprocessing, graph.input_size)
        return half_range.overflowing(graph, nchw(np.stack([pipeline(image) for image in images])))
    except SlimsegError:
        return ()
