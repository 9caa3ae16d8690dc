"""Shares, speed-ups and sums of milliseconds, each of the numbers that stand beside it: nothing else computes them.

Every time of one result is of one pace: what was timed in another run is brought to it before it comes here, so that
whoever divides what a table shows gets what the table says.
"""

from __future__ import annotations

from collections.abc import Sequence


def share(part: float, whole: float) -> float:
    """`part / whole`, 0-1 for parts of a whole; 0 of nothing."""
    return part / whole if whole else 0.0


def speedup(before: float, after: float) -> float:
    """How many times faster: `before / after`; 0 where nothing was measured after."""
    return before / after if after else 0.0


def together(savings: Sequence[float], parts: Sequence[float], whole: float) -> float:
    """What several edits save of a whole, each of its own part.

    Parts that overlap are longer together than the whole: every millisecond of it is then counted once, so that no
    sum of savings comes to more than there is.
    """
    return sum(savings) * min(1.0, share(whole, sum(parts)) or 1.0)


def is_measurable(difference: float, error: float | None) -> bool:
    """Whether a difference is beyond twice its standard error; one of unknown error is taken as it is."""
    return error is None or abs(difference) > 2 * error


def beside(value: float, bound: float, places: int) -> str:
    """A number with `places` decimals, or as many more as show on which side of a bound it lies; no negative zero."""
    for more in range(7):
        shown = round(value, places + more) + 0.0
        if (shown > bound) == (value > bound) and (shown < bound) == (value < bound):
            break
    return f"{shown:.{places + more}f}"


def cumulated(parts: Sequence[float], whole: float) -> list[float]:
    """For each part, in the order given, the share of it and of all larger ones."""
    sums, running = [0.0] * len(parts), 0.0
    for index in sorted(range(len(parts)), key=lambda each: -parts[each]):
        running += share(parts[index], whole)
        sums[index] = running
    return sums
