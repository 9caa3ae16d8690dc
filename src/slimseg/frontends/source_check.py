"""Compares an opened network with its source's own runtime, so that a misread layer is reported at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from slimseg.errors import ModelError, SlimsegError, Unsupported, one_line
from slimseg.frontends import own_runtime
from slimseg.frontends.trial_run import Demand
from slimseg.graph.graph import Graph
from slimseg.graph.noise import noise
from slimseg.graph.orders import TO_NCHW, nchw
from slimseg.graph.source_check import OwnRuntime, SourceCheck
from slimseg.runtimes import host

Array = np.ndarray[Any, Any]
TOLERANCE = 0.01  # largest difference allowed, as a share of the largest value; rounding alone gives about 1e-5
HALF_TOLERANCE = 0.1  # the same for a network that computes in 16 bits, whose rounding errors add up
MASK_TOLERANCE_PERCENT = 1.0  # percent of the pixels that may differ in a mask, where two scores may have been equal
JUMPS_TOLERANCE_PERCENT = 1.0  # percent of the values that may differ in a network with jumps (a threshold, an argmax)
MOST_WORK = 5 * 10**10  # multiply-accumulates, which take about two seconds; heavier networks are not compared
_ROUNDING = 1e-5  # noise as a share of the input, as strong as the float32 rounding errors of a few layers


def attach(graph: Graph, source: Path | nn.Module, demand: Demand) -> None:
    """Attach the source's own runtime to the graph, if it has one, and compare on noise. Sets `Graph.source_check`.

    A quantised source was opened with de-quantised weights, so a difference is no error there.

    Args:
        demand: memory and work for one image; a network with too much of either is not run twice.

    Raises:
        ModelError: the outputs of a float source differ from those of its own runtime.
    """
    try:
        own = own_runtime.of(graph, source)
    except Unsupported as error:
        graph.source_check = SourceCheck(reason=str(error))
        return
    graph.own_runtime = own
    if demand.is_heavy or demand.macs > MOST_WORK:
        graph.source_check = SourceCheck(reason="it needs too much time or memory to run twice while it is opened")
    else:
        graph.source_check = check(graph, own, [_random_image(graph)])


def on_images(graph: Graph, images: Sequence[Array]) -> SourceCheck:
    """Compare on RGB images (height, width, 3) of any size; returns the check from `attach` if that is impossible.

    Raises:
        ModelError: as for `attach`.
    """
    if graph.own_runtime is None or graph.input_shape[1] != 3:
        return graph.source_check
    pipeline = host.ImagePipeline(graph.description.preprocessing, graph.input_size)
    inputs = [nchw(pipeline(image)[None]).contiguous() for image in images]
    return replace(check(graph, graph.own_runtime, inputs), images=len(images))


def check(graph: Graph, own: OwnRuntime, images: Sequence[Tensor]) -> SourceCheck:
    """Compare on preprocessed NCHW images; returns the largest difference, and the differing pixels over all images.

    Raises:
        ModelError: as for `attach`.
    """
    found = []
    try:
        for image, outputs in zip(images, own.outputs(images), strict=True):
            with torch.no_grad():
                compared = _nearest(graph(image), outputs, image)
            if compared is None:
                return SourceCheck(reason=f"{own.name} has no output of shape {graph.shape(graph.output)}")
            if compared.departs(graph, own.is_half) and not graph.is_quantised:
                if not _repeats(own, image, outputs):
                    return SourceCheck(reason="its outputs differ from run to run")
                _refuse(graph, own, compared)
            found.append(compared)
    except ModelError:
        raise
    except SlimsegError as error:
        return SourceCheck(reason=str(error))
    except Exception as error:  # the user's own module may raise any error
        return SourceCheck(reason=one_line(error))
    worst = max(each.relative_difference for each in found)
    return SourceCheck(own.name, worst, float(np.mean([each.differing_percent for each in found])))


@dataclass(frozen=True)
class _Compared:
    """One output of the Graph and the source's output of the same shape."""

    ours: Array  # NCHW, or (N, height, width) for a mask
    theirs: Array
    image: Tensor
    is_mask: bool

    @cached_property
    def differences(self) -> Array:
        """Absolute difference of each value, as a share of the largest value."""
        largest = max(float(np.abs(self.theirs[np.isfinite(self.theirs)]).max(initial=0)), 1e-12)
        both = np.isfinite(self.ours) & np.isfinite(self.theirs)
        with np.errstate(invalid="ignore"):
            differences = np.abs(self.ours - self.theirs) / largest
        alike = (self.ours == self.theirs) | (np.isnan(self.ours) & np.isnan(self.theirs))
        return np.where(both, differences, np.where(alike, 0.0, np.inf))

    @property
    def relative_difference(self) -> float:
        return float(self.differences.max(initial=0))

    @property
    def differing_percent(self) -> float:
        """Percent of the pixels whose class differs."""
        return 100 * float((_classes(self.ours) != _classes(self.theirs)).mean())

    def departs(self, graph: Graph, is_half: bool) -> bool:
        """Whether the outputs differ by more than rounding explains."""
        if self.is_mask:
            return self.differing_percent > MASK_TOLERANCE_PERCENT
        tolerance = HALF_TOLERANCE if is_half else TOLERANCE
        departing = self.differences > tolerance
        if not departing.any():
            return False
        return 100 * float(departing.mean()) > JUMPS_TOLERANCE_PERCENT or not _jumps(graph, self, tolerance)


def _jumps(graph: Graph, compared: _Compared, tolerance: float) -> bool:
    """Whether noise of rounding strength alone moves single values by more than `tolerance`, as a threshold does."""
    with torch.no_grad():
        moved = graph(compared.image * (1 + _ROUNDING * noise(graph))).double().numpy()
    return replace(compared, ours=moved, theirs=compared.ours).relative_difference > tolerance


def _repeats(own: OwnRuntime, image: Tensor, outputs: list[Array]) -> bool:
    """Whether the source's own runtime gives the same outputs a second time."""
    again = next(iter(own.outputs([image])))
    return all(np.allclose(a, b, rtol=1e-3, atol=1e-5, equal_nan=True) for a, b in zip(outputs, again, strict=True))


def _refuse(graph: Graph, own: OwnRuntime, compared: _Compared) -> None:
    raise ModelError(
        f"{graph.name} opens, but its outputs differ from those of {own.name} (by up to "
        f"{100 * compared.relative_difference:.1f}% of the largest value, and another class for "
        f"{compared.differing_percent:.1f}% of the pixels): slimseg misreads one of its layers; please report it"
    )


def _random_image(graph: Graph) -> Tensor:
    """Random bytes, preprocessed as the network expects; the same at every call."""
    _, channels, height, width = graph.input_shape
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)
    if channels == 3:
        value = host.ImagePipeline(graph.description.preprocessing, graph.input_size)(pixels)
    else:
        value = (pixels / 255).astype(np.float32)
    return torch.from_numpy(value).permute(2, 0, 1)[None].contiguous()


def _nearest(own: Tensor, outputs: Sequence[Array], image: Tensor) -> _Compared | None:
    """The Graph's output and the source's output nearest to it; None if none has its shape."""
    ours, is_mask = own.double().numpy(), own.ndim == 3 and not own.is_floating_point()
    laid_out = (theirs for output in outputs for theirs in _laid_out(output, ours.shape))
    found = [_Compared(ours, theirs.astype(np.float64), image, is_mask) for theirs in laid_out]
    return min(found, key=lambda each: (each.relative_difference, each.differing_percent), default=None)


def _laid_out(output: Array, shape: tuple[int, ...]) -> Iterator[Array]:
    """The output in the Graph's layout: as it is, with dimensions reordered, or without those of length 1."""
    if output.shape == shape:
        yield output
    if output.ndim == 4 and tuple(output.shape[dim] for dim in TO_NCHW) == shape:
        yield output.transpose(TO_NCHW)
    elif output.shape != shape and tuple(n for n in output.shape if n > 1) == tuple(n for n in shape if n > 1):
        yield output.reshape(shape)


def _classes(values: Array) -> Array:
    """Class per pixel: the index of the largest score. One channel and masks are rounded to whole numbers instead."""
    return values.argmax(1) if values.ndim == 4 and values.shape[1] > 1 else np.rint(values)
