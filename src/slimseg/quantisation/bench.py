"""The bench makes and measures quantised files: writes them, runs them, times them with the original, judges accuracy.

Base (a float32 file, its activations) ── tried ──> Trial (a file) ── timed, judged ──> a row of the table
"""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from torch import Tensor

from slimseg.errors import OutputError, RuntimeFailure, SlimsegError
from slimseg.graph.graph import Graph
from slimseg.graph.orders import nchw
from slimseg.progress import Progress
from slimseg.quantisation import calibration
from slimseg.quantisation.calibration import Method, Observed, Ranges
from slimseg.quantisation.carried import carried
from slimseg.quantisation.schemes import Attempt
from slimseg.quantisation.source import Source
from slimseg.quantisation.timing import Beside, beside_float
from slimseg.results import QuantisedFile
from slimseg.runtimes import benchmark, child, deployed, registry
from slimseg.runtimes.quantiser import Ends
from slimseg.tflite import file, halves
from slimseg.training.metrics import Accuracy

_MEMORY_BYTES = 2 << 30  # memory for all images that PyTorch runs a network on at once


class Jury(Protocol):
    """Measures the accuracy of deployed files on `count` images."""

    @property
    def count(self) -> int: ...

    def accuracy(self, path: Path) -> Accuracy: ...

    def doubts(self, path: Path, names: Sequence[str]) -> tuple[str, ...]:
        """Sentences on what suggests that the original does not work on the images; empty if nothing does."""


@dataclass(frozen=True)
class Base:
    """A float32 file to quantise, and its activations measured on the images for calibration."""

    path: Path
    observed: Observed | RuntimeFailure | None = None  # activations, or why measuring failed; None: not measured
    is_ours: bool = True  # whether it was written from a Graph, so that its tensors have the names of nodes

    def ranges(self, method: Method) -> Ranges:
        """Ranges of the activations by tensor name.

        Raises:
            RuntimeFailure: the activations could not be measured.
        """
        if not isinstance(self.observed, Observed):
            raise self.observed or AssertionError("ranges without images")
        return self.observed.ranges(method)


@dataclass(frozen=True)
class Trial:
    """One attempt at a file, with the results so far."""

    attempt: Attempt
    base: Base
    path: Path | None = None
    failure: SlimsegError | None = None  # why there is no file
    reason: str = ""  # the failure in words for the user, or why there is no accuracy
    time: Beside | None = None
    accuracy: Accuracy | None = None
    cost_ms: float | None = None  # extra latency of the layers kept in float32, compared with int8 throughout

    @property
    def row(self) -> QuantisedFile:
        time = self.time or Beside(0.0, 0.0)
        return QuantisedFile(
            scheme=self.attempt.scheme,
            ranges=self.attempt.ranges or "",
            latency_ms=time.latency_ms,
            original_ms=time.original_ms,
            size_bytes=0 if self.path is None else self.path.stat().st_size,
            miou=None if self.accuracy is None else self.accuracy.miou,
            agreement=None if self.accuracy is None else self.accuracy.agreement,
            reason=self.reason,
            corrected=self.attempt.corrected,
            kept_float=self.attempt.keep_float,
            kept_cost_ms=self.cost_ms,
        )


@dataclass(frozen=True)
class Bench:
    """The source, the images and the runtime of one call of `quantize`."""

    source: Source
    images: calibration.Images | None
    judge: Jury | None
    io: Ends
    threads: int
    progress: Progress
    scratch: Path

    def base(self, path: Path, methods: Collection[Method], is_ours: bool = True) -> Base:
        """A float32 file with its activations measured, in one go for all `methods` of finding ranges.

        Raises:
            DataError, ModelError: an image cannot be used, or an activation is not finite.
        """
        if self.images is None or not methods:
            return Base(path, None, is_ours)
        try:
            observed = calibration.observe(path, self.images, methods, self.threads, self.progress)
        except RuntimeFailure as error:
            return Base(path, error, is_ours)  # schemes without ranges may still work
        return Base(path, observed, is_ours)

    def written(self, graph: Graph, name: str, method: Method) -> Base:
        """A graph written as a float32 file, with its activations measured for one method of finding ranges.

        Raises:
            Unsupported, ModelError: the graph cannot be written, or computes values that are not finite.
        """
        path = self.scratch / f"{_file_name('float32', name)}.tflite"
        deployed.write_float(graph, path)
        return self.base(path, {method})

    def tried(self, attempt: Attempt, base: Base) -> Trial:
        """Quantise `base` and run the file once; the trial has the file, or the failure.

        Raises:
            OutputError: the file cannot be written.
        """
        if attempt.scheme == "float16" and self.source.is_half:
            return Trial(attempt, base, self.source.original)  # the original is float16 already
        kept = f"{len(attempt.keep_float)} in float32" if attempt.keep_float else ""
        path = self.scratch / f"{_file_name(attempt.scheme, attempt.ranges or 'plain', attempt.corrected, kept)}.tflite"
        try:
            ranges = None if attempt.ranges is None else base.ranges(attempt.ranges)
            its = registry.of(base.path).quantiser()
            its.quantise(base.path, path, attempt.scheme, ranges, self.io, attempt.keep_float)
            if self.source.is_half:  # weights that stay in float keep the original's float16
                file.save(halves.narrowed(path.read_bytes(), path), path)
            path = carried(path, base.path, attempt.scheme, self.source.its)
            benchmark.time_files([path], self.threads, rounds=1)
        except OutputError:
            raise
        except SlimsegError as error:
            return self.failed(attempt, base, error)
        return Trial(attempt, base, path)

    def failed(self, attempt: Attempt, base: Base, error: SlimsegError) -> Trial:
        return Trial(attempt, base, failure=error, reason=str(error).replace(f"{self.scratch}{os.sep}", ""))

    def original(self, times: Mapping[Path, Beside]) -> QuantisedFile:
        """The original's row. It must be judged before all others, whose masks are compared with the original's."""
        path, size = self.source.original, self.source.size_bytes
        accuracy = Accuracy(None, None) if self.judge is None else self.judge.accuracy(path)
        time, scheme = times[path], "float16" if self.source.is_half else "float32"
        return QuantisedFile(scheme, "", time.latency_ms, time.original_ms, size, accuracy.miou, accuracy.agreement)

    def judged(self, trial: Trial) -> Trial:
        """The trial with its accuracy."""
        if self.judge is None or trial.path is None:
            return trial
        return replace(trial, accuracy=self.judge.accuracy(trial.path))

    def times(self, paths: Sequence[Path]) -> Mapping[Path, Beside]:
        """Times of the original and of every file, measured round-robin.

        Raises:
            RuntimeFailure, ModelError: the runtime refused a file or crashed; ModelError if that is the file's fault.
        """
        try:
            own = self.source.original
            return beside_float(own, [path for path in paths if path != own], self.threads)
        except RuntimeFailure as error:
            raise child.blamed(error) from error

    def timed(self, trials: Sequence[Trial], original_ms: float, plain: Trial | None = None) -> list[Trial]:
        """The trials with their times, scaled to a machine on which the original takes `original_ms`.

        With `plain`, they are timed in the same run as it, scaled by its own time instead, and get their extra latency
        over it as `cost_ms`.
        """
        beside = None if plain is None or plain.time is None else plain.path
        others = () if beside is None else (beside,)
        times = self.times([*others, *(trial.path for trial in trials if trial.path is not None)])
        pace, plain_ms = original_ms / times[self.source.original].latency_ms, None
        if beside is not None and plain is not None and plain.time is not None:
            plain_ms = plain.time.latency_ms
            pace = plain_ms / times[beside].latency_ms
        return [_beside(trial, times, pace, original_ms, plain_ms) for trial in trials]

    def tensor(self, most: int, bytes_each: int = 0) -> Tensor:
        """(N, 3, H, W), preprocessed: at most `most` of the images for calibration, evenly spread.

        Args:
            bytes_each: memory that a computation needs for each image, in bytes. N is limited to what fits into
                2 GiB, but is at least 1.
        """
        assert self.images is not None
        count = min(most, _MEMORY_BYTES // max(1, bytes_each))
        return nchw(np.stack(self.images.spread(max(1, count)))).contiguous()


def _beside(
    trial: Trial, times: Mapping[Path, Beside], pace: float, original_ms: float, plain_ms: float | None
) -> Trial:
    """The trial with its time scaled by `pace`, the original's time, and its extra latency over int8 throughout."""
    if trial.path is None:
        return trial
    latency_ms = pace * times[trial.path].latency_ms
    cost_ms = None if plain_ms is None else latency_ms - plain_ms
    return replace(trial, time=Beside(latency_ms, original_ms, times[trial.path].seen), cost_ms=cost_ms)


def bytes_of_values(graph: Graph) -> list[int]:
    """Size in bytes of every layer's output, for one image in float32."""
    return [4 * math.prod(graph.shape(node)[1:]) for node in graph.layers()]


def _file_name(*parts: str) -> str:
    return "_".join(part.replace(" ", "_") for part in parts if part)
