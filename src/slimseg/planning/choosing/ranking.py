"""Which of several deployed files is the best for a budget: one total order, whatever the files are.

    1   those that meet the whole budget, the fastest of them first
    2   those that lose at most NEARLY points more than --max-drop, what comes nearest to the budget first
    3   the rest, likewise: never where the original is among them, as it loses nothing

How far a file is from a budget adds up over its lines: a file twice as large or half as fast as was asked for is as far
away as one that loses NEARLY points too much. Equals are told apart by speed, then accuracy, then size, so that no file
is ranked before another that is better in one of the three and no worse in the others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from slimseg.planning.choosing.budget import Budget

NEARLY = 0.5  # points of mIoU, or without labels percent of pixels, beyond --max-drop


@dataclass(frozen=True, order=True)
class Rank:
    """The larger, the better."""

    holds: bool
    is_near: bool
    nearness: float  # minus the distance from the budget
    speedup: float
    accuracy: float  # minus the drop
    smallness: float  # minus the size


def rank(budget: Budget, drop: float, speedup: float, size_bytes: int, ready: bool = True) -> Rank:
    """Where a file stands.

    Args:
        drop: points of mIoU lost to the original; without labels, percent of pixels that changed class.
        speedup: over the original in float32.
        ready: whether edits that need training had some, or there are none: what is not ready may lose no more than
            `max_drop`.
    """
    excess = max(0.0, drop - budget.max_drop)
    speed = 0.0 if budget.min_speedup is None else max(0.0, math.log2(budget.min_speedup / max(speedup, 1e-9)))
    size = 0.0 if budget.max_size_bytes is None else max(0.0, math.log2(max(size_bytes, 1) / budget.max_size_bytes))
    distance = excess / NEARLY + speed + size
    return Rank(
        holds=distance == 0,
        is_near=excess <= (NEARLY if ready else 0.0),
        nearness=-distance,
        speedup=speedup,
        accuracy=-drop,
        smallness=-float(size_bytes),
    )
