"""Latencies precise enough to measure small edits: the files are loaded many times, and timed briefly after each load.

The memory addresses of a loaded file change its latency by about 1 % until it is loaded again, so more rounds of one
load do not help. In networks of 4 ms, savings of 0.1 to 1 ms vary by 0.04 ms from load to load, while nine rounds of
one load already measure them to 0.03 ms. So the mean over loads is taken, and their spread gives its standard error.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

from slimseg.progress import Bar, Progress
from slimseg.runtimes import benchmark, calm, child
from slimseg.runtimes.calm import Seen

FEWEST_LOADS = 6
SECONDS_OF_A_LOAD = 1.0  # timing per load, all files together; loading takes about as long
MOST_ROUNDS = 300  # per load
KNOWN = 0.03  # largest standard error, as a share of the saving, at which a saving counts as known


@dataclass(frozen=True)
class Steady:
    """Milliseconds of every file (columns) in every load (rows)."""

    loads_ms: tuple[tuple[float, ...], ...]
    seen: Seen = calm.NOTHING

    @classmethod
    def of_loads(cls, loads_ms: Sequence[Sequence[float]], seen: Seen = calm.NOTHING) -> Steady:
        """All loads at one pace: loads during which the whole machine was slower are scaled to the quickest load."""
        totals = [sum(load) for load in loads_ms]
        paces = [total / min(totals) if total > calm.CALM * min(totals) else 1.0 for total in totals]
        return cls(tuple(tuple(each / pace for each in load) for load, pace in zip(loads_ms, paces, strict=True)), seen)

    def of(self, files: int) -> Steady:
        """The times of the first `files` files only."""
        return Steady(tuple(load[:files] for load in self.loads_ms), self.seen)

    def at_pace(self, pace: float) -> Steady:
        """The same times on a machine that takes `pace` times as long."""
        return Steady(tuple(tuple(pace * each for each in load) for load in self.loads_ms), self.seen)

    @property
    def latencies_ms(self) -> tuple[float, ...]:
        """Mean latency of every file over all loads."""
        return tuple(fmean(each) for each in zip(*self.loads_ms, strict=True))

    @property
    def savings_ms(self) -> tuple[float, ...]:
        """By how many milliseconds each file is faster than the file before it."""
        return tuple(fmean(each) for each in self._differences_ms())

    @property
    def errors_ms(self) -> tuple[float, ...]:
        """Standard errors of the savings; infinite after a single load."""
        loads = len(self.loads_ms)
        return tuple(stdev(each) / math.sqrt(loads) if loads > 1 else math.inf for each in self._differences_ms())

    @property
    def known_errors_ms(self) -> tuple[float, ...] | None:
        """The errors, or None after a single load."""
        return self.errors_ms if len(self.loads_ms) > 1 else None

    def _differences_ms(self) -> list[list[float]]:
        files = len(self.loads_ms[0])
        return [[load[number] - load[number + 1] for load in self.loads_ms] for number in range(files - 1)]


def known(saving_ms: float, error_ms: float) -> bool:
    """Whether a saving's standard error is at most `KNOWN` times the saving."""
    return error_ms <= KNOWN * abs(saving_ms)


def all_known(found: Steady) -> bool:
    return all(known(*each) for each in zip(found.savings_ms, found.errors_ms, strict=True))


def in_line(steps: Sequence[Steady]) -> list[Steady]:
    """Scale all timings to the pace of the first; each must begin with the file with which the one before ends."""
    made: list[Steady] = []
    for step in steps:
        made.append(step.at_pace(made[-1].latencies_ms[-1] / step.latencies_ms[0]) if made else step)
    return made


def time_files(
    paths: Sequence[Path],
    seconds: float,
    progress: Progress,
    enough: Callable[[Steady], bool] = all_known,
    until: float = math.inf,
) -> Steady:
    """Time files interleaved, and load them again in a new process until `seconds` have passed.

    Args:
        paths: the files, in the order in which savings are computed.
        seconds: longest time to spend, except that at least `FEWEST_LOADS` loads are timed.
        enough: called after every load; timing ends early if it returns True.
        until: a `time.monotonic()` after which no further load begins; the first load is always timed.

    Raises:
        ModelError, RuntimeFailure: as `benchmark.time_files`.
    """
    start, loads, seen = time.monotonic(), list[tuple[float, ...]](), calm.NOTHING
    bar = progress.bar("timing", total=seconds)
    try:
        while not loads or (
            time.monotonic() < until
            and (len(loads) < FEWEST_LOADS or not (_spent(start, seconds, bar) or enough(Steady.of_loads(loads))))
        ):
            timings = _load(paths)
            loads.append(tuple(quiet_ms(timing) for timing in timings))
            seen = sum((timing.seen for timing in timings), seen)
    finally:
        bar.close()
    return Steady.of_loads(loads, seen)


def _spent(start: float, seconds: float, bar: Bar) -> bool:
    passed = time.monotonic() - start
    bar.update(min(passed, seconds))
    return passed >= seconds


def _load(paths: Sequence[Path]) -> tuple[benchmark.Timing, ...]:
    with child.Child() as process:
        each = SECONDS_OF_A_LOAD / len(paths)
        return benchmark.time_files(paths, seconds_per_file=each, within=process, most_rounds=MOST_ROUNDS)


def quiet_ms(timing: benchmark.Timing) -> float:
    """Mean of the faster half of a file's rounds, as disturbances can only make rounds slower."""
    half = (len(timing.rounds_ms) + 1) // 2
    return fmean(sorted(timing.own_ms)[:half])
