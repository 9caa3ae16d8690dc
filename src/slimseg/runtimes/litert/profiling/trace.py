"""The profiler's results for many runs of one file: every kernel in order of execution, with its time in each run.

The profiler truncates times to whole microseconds, which loses half a microsecond on average; it is added again here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from slimseg.runtimes import calm

Array = np.ndarray[Any, Any]

# Types of profiler events.
TOTAL = 1  # the whole run; tag "Invoke"
BUILTIN = 2  # an operator on a built-in kernel; the event's index is the operator's in the file
DELEGATED = 8  # an XNNPACK operator; the event's index counts within its part of the graph

TRUNCATED_US = 0.5


@dataclass(frozen=True)
class Event:
    """One event of one run, as the profiler reports it."""

    tag: str
    type: int
    index: int
    elapsed_us: int
    start_us: int = 0  # 0 for delegated kernels: the delegate reports only durations
    subgraph: int = 0


@dataclass(frozen=True)
class Kernel:
    """One kernel that the runtime ran and timed."""

    tag: str  # e.g. "Convolution (NHWC, F32) IGEMM"
    type: int  # BUILTIN or DELEGATED
    index: int


@dataclass(frozen=True)
class Trace:
    """Every kernel of a run in order of execution, with its time in each of several runs."""

    kernels: tuple[Kernel, ...]
    elapsed_us: Array  # (runs, kernels) duration of each kernel
    total_us: Array  # (runs,) duration of the whole run
    start_us: Array  # (runs, kernels) since the run's start; delegated kernels follow one another without gaps

    @classmethod
    def of(cls, runs: Sequence[Sequence[Event]]) -> Trace:
        """From all events of every run; kernels of nested subgraphs (of IF, WHILE) are part of their operator's time.

        Raises:
            RuntimeError: the profiler reported different kernels in different runs, or not the run as a whole.
        """
        own = [_kernels(run) for run in runs]
        kernels = _names(own[0])
        if any(_names(run) != kernels for run in own):
            raise RuntimeError("the profiler reported different kernels in different runs")
        shape = len(runs), len(kernels)
        totals = [_total(run) for run in runs]
        return cls(
            kernels,
            np.array([[event.elapsed_us for event in run] for run in own], np.float64).reshape(shape),
            np.array([total.elapsed_us for total in totals], np.float64),
            np.array([_starts(run, total.start_us) for run, total in zip(own, totals, strict=True)]).reshape(shape),
        )

    def undisturbed(self, runs: int, taken_us: Array) -> Trace:
        """`runs` undisturbed runs of these, see `calm.undisturbed_rows`.

        Args:
            taken_us: (runs,) time of each run in which other work had the processor.
        """
        between = self.total_us - self.elapsed_us.sum(axis=1)
        elapsed, between = calm.undisturbed_rows(self.elapsed_us, between, taken_us, runs)
        gaps = np.median(self.start_us - _ends(self.elapsed_us), axis=0)  # only built-in kernels report their start
        return Trace(self.kernels, elapsed, elapsed.sum(axis=1) + between, np.maximum(gaps, 0.0) + _ends(elapsed))

    def most_typical(self) -> int:
        """Index of the run whose total time is closest to the median."""
        return int(np.argmin(np.abs(self.total_us - np.median(self.total_us))))

    def typical(self) -> tuple[Array, float]:
        """Milliseconds of each kernel and of the whole: means over the runs.

        For the time between the kernels the median is taken, since other work on the machine affects it most.
        """
        kernel_ms = (self.elapsed_us + TRUNCATED_US).mean(axis=0) / 1e3
        between_us = float(np.median(self.total_us - (self.elapsed_us + TRUNCATED_US).sum(axis=1)))
        return kernel_ms, float(kernel_ms.sum()) + max(0.0, between_us) / 1e3

    def at_pace(self, pace: float) -> Trace:
        """The same runs with all times multiplied by `pace`, after adding what truncation to microseconds lost."""
        lost = TRUNCATED_US * np.arange(len(self.kernels))
        return Trace(
            self.kernels, (self.elapsed_us + TRUNCATED_US) * pace, self.total_us * pace, (self.start_us + lost) * pace
        )


def _total(run: Sequence[Event]) -> Event:
    """The event of the whole run: the longest "Invoke", since nested subgraphs have one, too."""
    totals = [event for event in run if event.tag == "Invoke" and event.type == TOTAL]
    if not totals:
        raise RuntimeError("the profiler did not report the run as a whole")
    return max(totals, key=lambda event: event.elapsed_us)


def _kernels(run: Sequence[Event]) -> list[Event]:
    """The main graph's kernels in order, without nested ones, whose time is part of a built-in operator's."""
    return [event for event in run if event.type in (BUILTIN, DELEGATED) and event.subgraph == 0]


def _names(run: Sequence[Event]) -> tuple[Kernel, ...]:
    return tuple(Kernel(event.tag, event.type, event.index) for event in run)


def _ends(elapsed_us: Array) -> Array:
    """(runs, kernels): start of each kernel if all followed one another without gaps."""
    return np.asarray(np.cumsum(elapsed_us, axis=1) - elapsed_us)


def _starts(run: Sequence[Event], origin_us: int) -> list[float]:
    starts, end = [], 0.0
    for event in run:
        start = float(event.start_us - origin_us) if event.start_us >= origin_us > 0 else end
        starts.append(max(start, end))
        end = starts[-1] + event.elapsed_us
    return starts
