"""Runs with a profiler and runs without, in turns, so that both see the same machine; disturbed ones are repeated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import numpy as np

from slimseg.runtimes import calm
from slimseg.runtimes.benchmark import Invocable, sample
from slimseg.runtimes.calm import Array, Seen

T = TypeVar("T")
BLOCK = 5  # runs with the profiler, then as many without
LONGER = 2  # times the runs, at most, where the machine is disturbed


class Turns(Generic[T]):
    """What `profiled` told of each run, and what `plain` took; `take` fills them.

    Args:
        profiled: runs once with the profiler.
        plain: the same file without it.
        repeats: of a plain run that is too short for the clock.
    """

    def __init__(self, profiled: Callable[[], T], plain: Invocable, repeats: int, threads: int) -> None:
        self.told: list[T] = []
        self._profiled, self._plain, self._repeats, self._threads = profiled, plain, repeats, threads
        self._samples: list[tuple[float, float]] = []  # with the profiler: milliseconds, of that taken
        self._plain_samples: list[tuple[float, float]] = []

    def take(self, runs: int, after: Callable[[int], None] = lambda blocks_left: None) -> None:
        """Go on until `runs` runs with the profiler count, or more were made for some seconds.

        Args:
            after: called after each of the planned blocks, with how many of them were left, it included.
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
        self._profiled()  # does not count: the caches are the other's
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
        """What other work had of each run with the profiler."""
        return _columns(self._samples)[1]

    def plain_ms(self) -> tuple[float, ...]:
        """Milliseconds of the runs without the profiler that count."""
        return tuple(calm.values(*_columns(self._plain_samples)).tolist())

    @property
    def seen(self) -> Seen:
        return calm.seen(*_columns(self._samples)) + calm.seen(*_columns(self._plain_samples))


def _columns(samples: list[tuple[float, float]]) -> tuple[Array, Array]:
    ms, taken_ms = np.asarray(samples, np.float64).reshape(-1, 2).T
    return ms, taken_ms
