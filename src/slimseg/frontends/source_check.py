"""An opened network is compared with its source's own runtime: a reader that misreads is told at once."""

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
from slimseg.graph.orders import TO_NCHW, nchw
from slimseg.graph.source_check import OwnRuntime, SourceCheck
from slimseg.runtimes import host

Array = np.ndarray[Any, Any]
TOLERANCE = 0.01  # of the largest value; rounding makes some 1e-5
HALF_TOLERANCE = 0.1  # of a network that computes in 16 bits, whose rounding errors add up
MASK_TOLERANCE_PERCENT = 1.0  # of the pixels, where nothing but a mask is given, in which scores may have been equal
JUMPS_TOLERANCE_PERCENT = 1.0  # of the values, in a network that jumps (a threshold, an index of a maximum)
MOST_WORK = 5 * 10**10  # multiply-accumulates: about two seconds
_ROUNDING = 1e-5  # of the input, as strong as what float32 rounds off in a few layers


def attach(graph: Graph, source: Path | nn.Module, demand: Demand) -> None:
    """Give the graph its source's own runtime where there is one, and compare on noise. See `Graph.source_check`.

    A quantised source was opened de-quantised: there a difference is no mistake.

    Args:
        demand: what one image takes, by which it may be too much to run twice.

    Raises:
        ModelError: the outputs of a float source are others than those of its own runtime.
    """
    try:
        own = own_runtime.of(graph, source)
    except Unsupported as error:
        graph.source_check = SourceCheck(reason=str(error))
        return
    graph.own_runtime = own
    if demand.is_heavy or demand.macs > MOST_WORK:
        graph.source_check = SourceCheck(reason="it takes too much time or memory to run twice while it is opened")
    else:
        graph.source_check = check(graph, own, [_noise(graph)])


def on_images(graph: Graph, images: Sequence[Array]) -> SourceCheck:
    """Compare on RGB images (height, width, 3) of any size; what is known already, where that cannot be done.

    Raises:
        ModelError: as for `attach`.
    """
    if graph.own_runtime is None or graph.input_shape[1] != 3:
        return graph.source_check
    pipeline = host.ImagePipeline(graph.description.preprocessing, graph.input_size)
    inputs = [nchw(pipeline(image)[None]).contiguous() for image in images]
    return replace(check(graph, graph.own_runtime, inputs), images=len(images))


def check(graph: Graph, own: OwnRuntime, images: Sequence[Tensor]) -> SourceCheck:
    """Compare on preprocessed NCHW images; what is told is the worst of them, and the pixels of all.

    Raises:
        ModelError: as for `attach`.
    """
    found = []
    try:
        for image, outputs in zip(images, own.outputs(images), strict=True):
            with torch.no_grad():
                compared = _nearest(graph(image), outputs, image)
            if compared is None:
                return SourceCheck(reason=f"{own.name} gives no output of the shape {graph.shape(graph.output)}")
            if compared.departs(graph, own.is_half) and not graph.is_quantised:
                if not _repeats(own, image, outputs):
                    return SourceCheck(reason="it gives other outputs each time")
                _refuse(graph, own, compared)
            found.append(compared)
    except ModelError:
        raise
    except SlimsegError as error:
        return SourceCheck(reason=str(error))
    except Exception as error:  # whatever the user's own module raises
        return SourceCheck(reason=one_line(error))
    worst = max(each.relative_difference for each in found)
    return SourceCheck(own.name, worst, float(np.mean([each.differing_percent for each in found])))


@dataclass(frozen=True)
class _Compared:
    """One output of ours beside one of theirs, of the same shape."""

    ours: Array  # NCHW, or (N, height, width) of a mask
    theirs: Array
    image: Tensor
    is_mask: bool

    @cached_property
    def differences(self) -> Array:
        """Of each value, over the largest value."""
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
        """Of the pixels: another class."""
        return 100 * float((_classes(self.ours) != _classes(self.theirs)).mean())

    def departs(self, graph: Graph, is_half: bool) -> bool:
        """Whether they differ in more than rounding."""
        if self.is_mask:
            return self.differing_percent > MASK_TOLERANCE_PERCENT
        tolerance = HALF_TOLERANCE if is_half else TOLERANCE
        departing = self.differences > tolerance
        if not departing.any():
            return False
        return 100 * float(departing.mean()) > JUMPS_TOLERANCE_PERCENT or not _jumps(graph, self, tolerance)


def _jumps(graph: Graph, compared: _Compared, tolerance: float) -> bool:
    """Whether rounding alone moves single values of the network that far, as at a threshold in it."""
    draw = torch.randn(compared.image.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        moved = graph(compared.image * (1 + _ROUNDING * draw)).double().numpy()
    return replace(compared, ours=moved, theirs=compared.ours).relative_difference > tolerance


def _repeats(own: OwnRuntime, image: Tensor, outputs: list[Array]) -> bool:
    """Whether the source's own runtime gives the same again."""
    again = next(iter(own.outputs([image])))
    return all(np.allclose(a, b, rtol=1e-3, atol=1e-5, equal_nan=True) for a, b in zip(outputs, again, strict=True))


def _refuse(graph: Graph, own: OwnRuntime, compared: _Compared) -> None:
    raise ModelError(
        f"{graph.name} opens, but gives other outputs than {own.name} does (by up to "
        f"{100 * compared.relative_difference:.1f}% of the largest value, and another class for "
        f"{compared.differing_percent:.1f}% of the pixels): slimseg misreads one of its layers; please report it"
    )


def _noise(graph: Graph) -> Tensor:
    """Bytes at random, as the network's preprocessing makes them its input; the same at every call."""
    _, channels, height, width = graph.input_shape
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)
    if channels == 3:
        value = host.ImagePipeline(graph.description.preprocessing, graph.input_size)(pixels)
    else:
        value = (pixels / 255).astype(np.float32)
    return torch.from_numpy(value).permute(2, 0, 1)[None].contiguous()


def _nearest(own: Tensor, outputs: Sequence[Array], image: Tensor) -> _Compared | None:
    """Ours beside the likest of theirs; None where none has its shape."""
    ours, is_mask = own.double().numpy(), own.ndim == 3 and not own.is_floating_point()
    laid_out = (theirs for output in outputs for theirs in _laid_out(output, ours.shape))
    found = [_Compared(ours, theirs.astype(np.float64), image, is_mask) for theirs in laid_out]
    return min(found, key=lambda each: (each.relative_difference, each.differing_percent), default=None)


def _laid_out(output: Array, shape: tuple[int, ...]) -> Iterator[Array]:
    """The output as ours lies: as it is, or in the other order of dimensions, or without dimensions of length 1."""
    if output.shape == shape:
        yield output
    if output.ndim == 4 and tuple(output.shape[dim] for dim in TO_NCHW) == shape:
        yield output.transpose(TO_NCHW)
    elif output.shape != shape and tuple(n for n in output.shape if n > 1) == tuple(n for n in shape if n > 1):
        yield output.reshape(shape)


def _classes(values: Array) -> Array:
    """Indices of the largest scores; one channel and masks are compared as whole numbers."""
    return values.argmax(1) if values.ndim == 4 and values.shape[1] > 1 else np.rint(values)
