"""Ranks deployed files for a budget, in one total order:

    1   files that meet the whole budget, the fastest first
    2   files that lose at most NEARLY points more than --max-drop, the nearest to the budget first
    3   all others, the nearest to the budget first; the best file is never one of these if the original is ranked, too,
        as the original loses nothing

The distance from a budget is a sum over its bounds: a file that is twice as large or half as fast as required is as far
away as one that loses NEARLY points too much. Ties are broken by speed, then accuracy, then size, so that no file is
ranked before one that dominates it (is better in one of the three and no worse in the others).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from slimseg.planning.choosing.budget import Budget

NEARLY = 0.5  # points of mIoU beyond --max-drop; without labels, percent of pixels


@dataclass(frozen=True, order=True)
class Rank:
    """A sort key; the larger, the better."""

    holds: bool
    is_near: bool
    nearness: float  # minus the distance from the budget
    speedup: float
    accuracy: float  # minus the drop
    smallness: float  # minus the size


def rank(budget: Budget, drop: float, speedup: float, size_bytes: int, ready: bool = True) -> Rank:
    """The rank of a file for a budget.

    Args:
        drop: points of mIoU lost against the original; without labels, percent of pixels that changed class.
        speedup: over the original in float32.
        size_bytes: size of the file.
        ready: False if it has edits that need training and was not trained; such a file may lose no more than
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
