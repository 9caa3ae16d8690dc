"""Shares, speed-ups and sums of milliseconds: the only place that computes them from the times of a result.

All times of one result are scaled to one pace of the machine before they are passed to these functions. So a reader who
divides two times of a table gets the ratio that the table shows.
"""

from __future__ import annotations

from collections.abc import Sequence


def share(part: float, whole: float) -> float:
    """`part / whole`: 0-1 for a part of a whole; 0 if `whole` is 0."""
    return part / whole if whole else 0.0


def speedup(before: float, after: float) -> float:
    """How many times faster: `before / after`; 0 if `after` is 0 (not measured)."""
    return before / after if after else 0.0


def together(savings: Sequence[float], parts: Sequence[float], whole: float) -> float:
    """The total saving of several edits, of which each changes one part of the whole; all in milliseconds.

    If parts overlap, they may add up to more than the whole. The sum of the savings is then scaled down by
    `whole / sum(parts)`, so that the total saving does not exceed the whole.
    """
    return sum(savings) * min(1.0, share(whole, sum(parts)) or 1.0)


def is_measurable(difference: float, error: float | None) -> bool:
    """Whether a difference exceeds twice its standard error; True if the error is unknown (None)."""
    return error is None or abs(difference) > 2 * error


def beside(value: float, bound: float, places: int) -> str:
    """`value` with `places` decimals, or with more if needed to show on which side of `bound` it lies; never "-0"."""
    for more in range(7):
        shown = round(value, places + more) + 0.0
        if (shown > bound) == (value > bound) and (shown < bound) == (value < bound):
            break
    return f"{shown:.{places + more}f}"


def cumulated(parts: Sequence[float], whole: float) -> list[float]:
    """For each part, in the order given, the share of the whole that it and all larger parts have together, 0-1."""
    sums, running = [0.0] * len(parts), 0.0
    for index in sorted(range(len(parts)), key=lambda each: -parts[each]):
        running += share(parts[index], whole)
        sums[index] = running
    return sums
