"""Which of many times of one thing count, on a machine that has other work to do.

    taken     what other work had of the processor while a run lasted: the time on the clock less the thread's own
              processor time. A run that lost the processor is longer by whole time slices, whatever it computes
    slowed    a run of over 1.2 times the quickest one: a processor that clocks down, a cache that is shared
    counting  neither. Where too few runs are left, all count with their own processor time

A machine with nothing else to do loses a run or two in a hundred, and every time is the clock's.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from slimseg import ratios
from slimseg.results import Disturbance

Array = np.ndarray[Any, Any]
T = TypeVar("T")

CALM = 1.2  # times the quickest: what took longer was disturbed
LOST = 0.02  # of a run's time: what lost more of it to other work was disturbed
ENOUGH = 5  # runs that count, or a quarter of them: fewer say too little
PATIENCE_MS = 5000.0  # of runs that are made in place of disturbed ones, at most
TAKEN_SAID, SLOWED_SAID = 0.05, 0.25  # shares from which on a disturbance is worth a word
_FINE_CLOCK = sys.platform != "win32"  # where threads are charged in steps of 16 ms


@dataclass(frozen=True)
class Seen:
    """How calm the machine was while something was timed; what was seen of several timings adds up."""

    time_ms: float = 0.0
    taken_ms: float = 0.0
    runs: int = 0
    disturbed: int = 0  # of the runs

    def __add__(self, other: Seen) -> Seen:
        return Seen(
            self.time_ms + other.time_ms,
            self.taken_ms + other.taken_ms,
            self.runs + other.runs,
            self.disturbed + other.disturbed,
        )

    def disturbance(self) -> Disturbance | None:
        """None where the machine was as calm as can be asked of one."""
        taken, slowed = ratios.share(self.taken_ms, self.time_ms), ratios.share(self.disturbed, self.runs)
        return Disturbance(taken, slowed) if taken >= TAKEN_SAID or slowed >= SLOWED_SAID else None


NOTHING = Seen()


def of_all(seen: Iterable[Seen]) -> Disturbance | None:
    """What disturbed several timings together."""
    return sum(seen, NOTHING).disturbance()


def together(*found: Disturbance | None, drift: float = 1.0) -> Disturbance | None:
    """The worst of several disturbances; a file that once took much longer than another time is one, too."""
    seen = [each for each in found if each is not None]
    if not seen and drift <= CALM:
        return None
    return Disturbance(
        max((each.taken_share for each in seen), default=0.0),
        max((each.disturbed_share for each in seen), default=0.0),
        max((drift, *(each.drift for each in seen))),
    )


def timed(run: Callable[[], T], threads: int = 1) -> tuple[T, float, float]:
    """A result, the milliseconds on the clock, and those of them in which other work had the processor.

    Of several threads the latter is not known, and 0.
    """
    known = threads == 1 and _FINE_CLOCK
    own_ns = time.thread_time_ns() if known else 0
    start_ns = time.perf_counter_ns()
    result = run()
    spent_ns = time.perf_counter_ns() - start_ns
    taken_ns = max(0, spent_ns - (time.thread_time_ns() - own_ns)) if known else 0
    return result, spent_ns / 1e6, taken_ns / 1e6


def counting(ms: Array, taken_ms: Array) -> Array:
    """For every run whether nothing disturbed it."""
    whole = taken_ms <= LOST * ms
    quickest = ms[whole].min() if whole.any() else ms.min()
    return np.asarray(whole & (ms <= CALM * quickest))


def values(ms: Array, taken_ms: Array) -> Array:
    """The milliseconds that count: of the undisturbed runs, or of too few of those what the runs had themselves."""
    undisturbed = counting(ms, taken_ms)
    if undisturbed.sum() >= min(ENOUGH, -(-len(ms) // 4)):
        return np.asarray(ms[undisturbed])
    own = ms - taken_ms
    return np.asarray(own[own <= CALM * own.min()])


def own_ms(ms: Array, taken_ms: Array) -> Array:
    """Of every run: its time on the clock, or its own processor time where it lost the processor."""
    return np.where(taken_ms <= LOST * ms, ms, ms - taken_ms)


def seen(ms: Array, taken_ms: Array) -> Seen:
    disturbed = len(ms) - int(counting(ms, taken_ms).sum())
    return Seen(float(ms.sum()), float(taken_ms.sum()), len(ms), disturbed)


def undisturbed_rows(parts: Array, between: Array, taken: Array, count: int) -> tuple[Array, Array]:
    """`count` runs of something that consists of parts, as nothing disturbs them.

    Where there are not as many undisturbed runs, every part counts with the `count` quickest of its own times: what
    disturbs a run hits other parts of it each time.

    Args:
        parts: (runs, parts) of any unit.
        between: (runs,) what a run took beside its parts.
        taken: (runs,) what other work had of it.

    Returns:
        Parts (count, parts) and what lay between them (count,).
    """
    undisturbed = np.flatnonzero(counting(parts.sum(1) + between, taken))[:count]
    if len(undisturbed) == count:
        return parts[undisturbed], between[undisturbed]
    return np.sort(parts, 0)[:count], np.sort(between)[:count]
