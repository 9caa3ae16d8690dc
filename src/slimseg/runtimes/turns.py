"""Alternates blocks of runs with and without a profiler, so that both see the same machine; repeats disturbed runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import numpy as np

from slimseg.runtimes import calm
from slimseg.runtimes.benchmark import Invocable, sample
from slimseg.runtimes.calm import Array, Seen

T = TypeVar("T")
BLOCK = 5  # runs with the profiler, followed by as many without
LONGER = 2  # on a disturbed machine at most this many times the planned runs are made


class Turns(Generic[T]):
    """The results of runs with the profiler, in `told`, and the times of runs without; `take` collects both.

    Args:
        profiled: makes one run with the profiler and returns its result.
        plain: the same file, loaded without the profiler.
        repeats: number of plain runs that are timed as one; above 1 if a run is too short for the clock.
        threads: number of threads of the runtime.
    """

    def __init__(self, profiled: Callable[[], T], plain: Invocable, repeats: int, threads: int) -> None:
        self.told: list[T] = []
        self._profiled, self._plain, self._repeats, self._threads = profiled, plain, repeats, threads
        self._samples: list[tuple[float, float]] = []  # with the profiler: milliseconds, and those that other work took
        self._plain_samples: list[tuple[float, float]] = []

    def take(self, runs: int, after: Callable[[int], None] = lambda blocks_left: None) -> None:
        """Make `runs` runs with the profiler, then more until `runs` of all are undisturbed.

        The additional runs end after 5 s (`calm.PATIENCE_MS`), or when all runs are twice as many as planned.

        Args:
            after: called after each planned block, with the number of blocks that were left before it.
        """
        for start in range(0, runs, BLOCK):
            self._block(min(BLOCK, runs - start))
            after(-(-(runs - start) // BLOCK))
        planned_ms = self.seen.time_ms
        while (
            len(self._samples) < LONGER * runs
            and self._counting() < runs
            and self.seen.time_ms - planned_ms < calm.PATIENCE_MS
        ):
            self._block(min(BLOCK, LONGER * runs - len(self._samples)))

    def _block(self, count: int) -> None:
        self._profiled()  # not counted: the runs without the profiler have left their data in the caches
        for _ in range(count):
            told, *times = calm.timed(self._profiled, self._threads)
            self.told.append(told)
            self._samples.append((times[0], times[1]))
        self._plain.invoke()
        for _ in range(count if self._repeats == 1 else 1):
            self._plain_samples.append(sample(self._plain, self._repeats, self._threads))

    def _counting(self) -> int:
        return int(calm.counting(*_columns(self._samples)).sum())

    @property
    def taken_ms(self) -> Array:
        """For each run with the profiler, the milliseconds in which other work had the processor."""
        return _columns(self._samples)[1]

    def plain_ms(self) -> tuple[float, ...]:
        """Milliseconds of the undisturbed runs without the profiler."""
        return tuple(calm.values(*_columns(self._plain_samples)).tolist())

    @property
    def seen(self) -> Seen:
        return calm.seen(*_columns(self._samples)) + calm.seen(*_columns(self._plain_samples))


def _columns(samples: list[tuple[float, float]]) -> tuple[Array, Array]:
    ms, taken_ms = np.asarray(samples, np.float64).reshape(-1, 2).T
    return ms, taken_ms
