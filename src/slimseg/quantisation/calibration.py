"""Calibration: the quantisation ranges of activations, from their values on images.

    Given   for every tensor (min, max) on each image, and a histogram of all values between the outermost ones
    Result  (low, high): a wider range has coarser steps, a narrower one clips more values

    mean        the mean over images of both ends, which an unusual image changes little
    minmax      the outermost values: nothing is clipped
    percentile  all but the outermost 0.01% of the values on each side
    mse         the ends with the smallest squared error from rounding to 8 bits and clipping together

Krishnamoorthi, "Quantizing deep convolutional networks for efficient inference", 2018 (averages of minima and maxima);
Nagel et al., "A White Paper on Neural Network Quantization", 2021, section 3.1 (min-max and mean squared error);
Migacz, "8-bit Inference with TensorRT", 2017 (one pass for the extremes, one for histograms of 2048 bins).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from slimseg.errors import DataError
from slimseg.progress import Progress, Silent
from slimseg.runtimes import registry
from slimseg.training.data import Pixels, read_image

Method = Literal["mean", "minmax", "percentile", "mse"]
METHODS: tuple[Method, ...] = get_args(Method)
Ranges = dict[str, tuple[float, float]]
Array = NDArray[Any]
PERCENTILE = 99.99
STEPS = 255  # number of steps of an 8-bit grid
_SHARES = np.arange(1, 101) / 100  # candidates for an end of a range, as shares of the outermost value
_ROUNDS = 4  # most rounds of searching one end, then the other
_BLOCK = 8  # images measured between two updates of the progress bar


@dataclass(frozen=True)
class Images:
    """The images that ranges are measured on, spread over a folder; each is read when needed, to bound memory."""

    paths: tuple[Path, ...]
    prepare: Callable[[Pixels], Array]  # RGB bytes to the file's input
    left_out: tuple[Path, ...] = ()  # images of a single colour, which show nothing about a network's activations

    def __len__(self) -> int:
        return len(self.paths)

    def samples(self, start: int = 0, stop: int | None = None) -> list[Array]:
        """Inputs (height, width, 3) float32 of the images `start` to `stop` - 1."""
        return [self.prepare(read_image(path)) for path in self.paths[start:stop]]

    def spread(self, count: int) -> list[Array]:
        """At most `count` inputs, evenly spread."""
        return [self.prepare(read_image(self.paths[place])) for place in _spread(len(self.paths), count)]


def choose(paths: Sequence[Path], count: int, prepare: Callable[[Pixels], Array]) -> Images:
    """At most `count` of the images, spread evenly over the folder's order; those of a single colour are left out.

    Raises:
        DataError: an image cannot be read, there is none, or each is of a single colour.
    """
    if not paths:
        raise DataError("there are no images for calibration: give a folder with images")
    chosen = [paths[place] for place in _spread(len(paths), count)]
    plain = tuple(path for path in chosen if _is_plain(read_image(path)))
    if len(plain) == len(chosen):
        raise DataError(
            f"{chosen[0]} and all other images for calibration ({len(chosen)} in all) have a single colour each, which "
            "does not show the ranges of activations: give photographs like those in use"
        )
    return Images(tuple(path for path in chosen if path not in plain), prepare, plain)


def _spread(total: int, count: int) -> list[int]:
    """At most `count` evenly spread indices below `total`, with the first and the last."""
    return [int(place) for place in np.unique(np.linspace(0, total - 1, min(count, total)).round())]


def _is_plain(image: Pixels) -> bool:
    return bool((image == image[0, 0]).all())


@dataclass(frozen=True)
class Observed:
    """The activations of one float file on images, summarised, by tensor name."""

    extremes: Mapping[str, Array]  # (images, 2): minimum and maximum on each image
    histograms: Mapping[str, Array] = field(default_factory=dict)  # (bins,): counts between the outermost extremes

    def ranges(self, method: Method) -> Ranges:
        """By tensor name: (low, high).

        Raises:
            KeyError: the method needs histograms that were not taken.
        """
        return {name: self._range(name, method) for name in self.extremes}

    def _range(self, name: str, method: Method) -> tuple[float, float]:
        ends = self.extremes[name]
        if method == "mean":
            low, high = ends.mean(0)
            return float(low), float(high)
        lowest, highest = _outermost(ends)
        if method == "minmax" or lowest == highest:
            return lowest, highest
        search = percentile_range if method == "percentile" else mse_range
        return search(self.histograms[name], lowest, highest)


def observe(
    path: Path,
    images: Images | Sequence[Array],
    methods: Iterable[Method] = METHODS,
    threads: int = 1,
    progress: Progress | None = None,
) -> Observed:
    """Measure a float file's activations on images: one pass for extremes, one for histograms if a method needs them.

    Raises:
        DataError: there is no image, or an input has the wrong shape.
        ModelError: an activation is not finite.
        RuntimeFailure: the runtime refused the file or crashed.
    """
    progress = progress or Silent()
    if not len(images):
        raise DataError(f"{path} cannot be quantised without an image for calibration: give at least one")
    quantiser, starts = registry.of(path).quantiser(), range(0, len(images), _BLOCK)
    seen: dict[str, list[Array]] = {}
    for start in progress.track(starts, "ranges of activations"):
        for name, ends in quantiser.extremes(path, _samples(images, start), threads).items():
            seen.setdefault(name, []).append(ends)
    extremes = {name: np.concatenate(parts) for name, parts in seen.items()}
    if not {"percentile", "mse"} & set(methods):
        return Observed(extremes)
    outermost = {name: _outermost(ends) for name, ends in extremes.items()}
    counts: dict[str, Array] = {}
    for start in progress.track(starts, "histograms of activations"):
        found = quantiser.histograms(path, _samples(images, start), outermost, threads)
        counts = {name: part + counts.get(name, 0) for name, part in found.items()}
    return Observed(extremes, counts)


def _samples(images: Images | Sequence[Array], start: int) -> Sequence[Array]:
    stop = start + _BLOCK
    return images.samples(start, stop) if isinstance(images, Images) else images[start:stop]


def _outermost(ends: Array) -> tuple[float, float]:
    return float(ends[:, 0].min()), float(ends[:, 1].max())


def percentile_range(counts: Array, low: float, high: float, percentile: float = PERCENTILE) -> tuple[float, float]:
    """(low, high) without the values outside the percentile on each side; interpolated within bins of `counts`."""
    edges = np.linspace(low, high, len(counts) + 1)
    below = np.concatenate(([0], np.cumsum(counts))) / max(1, counts.sum())
    share = percentile / 100
    return float(np.interp(1 - share, below, edges)), float(np.interp(share, below, edges))


def mse_range(counts: Array, low: float, high: float) -> tuple[float, float]:
    """The part of (low, high) that contains 0 and whose 8-bit grid has the smallest squared error, clipping included.

    Each end is optimised in turn while the other is fixed, until neither changes.
    """
    values = _centres(counts, low, high)
    low, high = best = min(low, 0.0), max(high, 0.0)
    for _ in range(_ROUNDS):
        before = best
        for end in (0, 1):
            outermost = (low, high)[end]
            candidates = [(each, best[1]) if end == 0 else (best[0], each) for each in outermost * _SHARES]
            errors = _squared_errors(values, counts, np.asarray(candidates))
            best = candidates[int(errors.argmin())]
        if best == before:
            break
    return float(best[0]), float(best[1])


def _centres(counts: Array, low: float, high: float) -> Array:
    """The middle of every bin; 0 for the bin that contains 0, as most values of a network are exactly 0."""
    edges = np.linspace(low, high, len(counts) + 1)
    return np.where((edges[:-1] <= 0) & (edges[1:] >= 0), 0.0, (edges[:-1] + edges[1:]) / 2)


def _squared_errors(values: Array, counts: Array, candidates: Array) -> Array:
    """(candidates,): for the grid of each (low, high) the sum of squared errors over all counted values."""
    scale = np.maximum((candidates[:, 1] - candidates[:, 0]) / STEPS, np.finfo(np.float32).tiny)[:, None]
    zero = np.rint(-candidates[:, :1] / scale)
    steps = np.clip(np.rint(values / scale) + zero, 0, STEPS)
    return np.asarray((((steps - zero) * scale - values) ** 2) @ counts)
