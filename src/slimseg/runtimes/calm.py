"""Selects the undisturbed ones among repeated timings of one computation, on a machine that may have other work.

    taken     time in which other work had the processor during a run: wall-clock time less the thread's own processor
              time. A run that is interrupted gets longer by whole time slices of the scheduler
    slowed    a run that took over 1.2 times the quickest one: the processor clocked down, or others used a shared cache
    counting  a run that is neither interrupted nor slowed. If too few runs are left, processor times are used instead
              of wall-clock times

On an idle machine one or two runs in a hundred are disturbed, and all times used are wall-clock times.
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

CALM = 1.2  # a run that took more than this many times the quickest run was disturbed
LOST = 0.02  # a run that lost more than this share of its time to other work was disturbed
ENOUGH = 5  # undisturbed runs that suffice for a median; a quarter of all runs suffices, too
PATIENCE_MS = 5000.0  # longest total time of the runs that replace disturbed ones
TAKEN_SAID, SLOWED_SAID = 0.05, 0.25  # shares of time and of runs, 0-1, from which on a disturbance is reported
_FINE_CLOCK = sys.platform != "win32"  # Windows counts a thread's processor time in steps of 16 ms


@dataclass(frozen=True)
class Seen:
    """How much other work disturbed a timing; the counts of several timings can be added."""

    time_ms: float = 0.0
    taken_ms: float = 0.0
    runs: int = 0
    disturbed: int = 0  # number of disturbed runs

    def __add__(self, other: Seen) -> Seen:
        return Seen(
            self.time_ms + other.time_ms,
            self.taken_ms + other.taken_ms,
            self.runs + other.runs,
            self.disturbed + other.disturbed,
        )

    def disturbance(self) -> Disturbance | None:
        """The disturbance, or None if it is too small to be reported."""
        taken, slowed = ratios.share(self.taken_ms, self.time_ms), ratios.share(self.disturbed, self.runs)
        return Disturbance(taken, slowed) if taken >= TAKEN_SAID or slowed >= SLOWED_SAID else None


NOTHING = Seen()


def of_all(seen: Iterable[Seen]) -> Disturbance | None:
    """The disturbance of several timings taken together."""
    return sum(seen, NOTHING).disturbance()


def together(*found: Disturbance | None, drift: float = 1.0) -> Disturbance | None:
    """The worst of several disturbances, or None if there was none.

    Args:
        found: disturbances, None where there was none.
        drift: the ratio of two latencies of the same file, 1 or more; above `CALM` it is a disturbance, too.
    """
    seen = [each for each in found if each is not None]
    if not seen and drift <= CALM:
        return None
    return Disturbance(
        max((each.taken_share for each in seen), default=0.0),
        max((each.disturbed_share for each in seen), default=0.0),
        max((drift, *(each.drift for each in seen))),
    )


def timed(run: Callable[[], T], threads: int = 1) -> tuple[T, float, float]:
    """The result of `run`, its wall-clock milliseconds, and those of them in which other work had the processor.

    The latter is unknown for several threads, and given as 0.
    """
    known = threads == 1 and _FINE_CLOCK
    own_ns = time.thread_time_ns() if known else 0
    start_ns = time.perf_counter_ns()
    result = run()
    spent_ns = time.perf_counter_ns() - start_ns
    taken_ns = max(0, spent_ns - (time.thread_time_ns() - own_ns)) if known else 0
    return result, spent_ns / 1e6, taken_ns / 1e6


def counting(ms: Array, taken_ms: Array) -> Array:
    """For every run whether it was undisturbed: neither interrupted nor slowed."""
    whole = taken_ms <= LOST * ms
    quickest = ms[whole].min() if whole.any() else ms.min()
    return np.asarray(whole & (ms <= CALM * quickest))


def values(ms: Array, taken_ms: Array) -> Array:
    """Milliseconds of the undisturbed runs; if these are too few, processor times of all runs but the slowed ones."""
    undisturbed = counting(ms, taken_ms)
    if undisturbed.sum() >= min(ENOUGH, -(-len(ms) // 4)):
        return np.asarray(ms[undisturbed])
    own = ms - taken_ms
    return np.asarray(own[own <= CALM * own.min()])


def own_ms(ms: Array, taken_ms: Array) -> Array:
    """For every run its time on the clock, or its own processor time if other work interrupted it."""
    return np.where(taken_ms <= LOST * ms, ms, ms - taken_ms)


def seen(ms: Array, taken_ms: Array) -> Seen:
    disturbed = len(ms) - int(counting(ms, taken_ms).sum())
    return Seen(float(ms.sum()), float(taken_ms.sum()), len(ms), disturbed)


def undisturbed_rows(parts: Array, between: Array, taken: Array, count: int) -> tuple[Array, Array]:
    """`count` undisturbed runs of a computation that consists of parts.

    If there are fewer undisturbed runs, each part is represented by the `count` quickest of its own times: a
    disturbance hits different parts in different runs.

    Args:
        parts: (runs, parts) time of every part, in any unit.
        between: (runs,) time of a run outside its parts, in the same unit.
        taken: (runs,) time of a run in which other work had the processor, in the same unit.

    Returns:
        Times of the parts (count, parts) and times outside them (count,).
    """
    undisturbed = np.flatnonzero(counting(parts.sum(1) + between, taken))[:count]
    if len(undisturbed) == count:
        return parts[undisturbed], between[undisturbed]
    return np.sort(parts, 0)[:count], np.sort(between)[:count]
