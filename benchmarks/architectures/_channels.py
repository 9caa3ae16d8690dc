"""Numbers of channels."""

from __future__ import annotations


def divisible(value: float, by: int) -> int:
    """The multiple of `by` that is nearest to `value`, and at least 90% of it."""
    rounded = max(by, int(value + by / 2) // by * by)
    return rounded + by if rounded < 0.9 * value else rounded
