"""Transposes of any number of dimensions, in steps of as few as a runtime's kernels take.

Dimensions that stay neighbours are moved as one: to cut a map into windows, (8, 7, 8, 7, C) becomes (8, 8, 7, 7, C),
and 7 and C stay together. Where this leaves too many, several transposes follow one another: windows, then heads.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import permutations

Transposed = tuple[tuple[int, ...], tuple[int, ...]]  # lengths of dimensions, and their order in the result

_MOST_SEARCHED = 7  # dimensions of which all orders are tried: 5040


def transposes(shape: Sequence[int], order: Sequence[int], most: int) -> list[Transposed]:
    """The transposes that together bring dimensions to `order`, each of at most `most` (at least four) dimensions.

    The values are reshaped to the lengths of each before it.
    """
    kept = [dim for dim in order if shape[dim] > 1]  # where a dimension of length 1 is makes no difference
    lengths, places = joined([shape[dim] for dim in sorted(kept)], [sorted(kept).index(dim) for dim in kept])
    if len(lengths) <= most:
        return [(lengths, places)]
    return _in_two(lengths, places, most) or list(_in_several(lengths, places, most))


def joined(shape: Sequence[int], order: Sequence[int]) -> Transposed:
    """The lengths of dimensions, and their order, with those joined that follow one another before and after."""
    groups = sorted(_rows(order))
    lengths = tuple(math.prod(shape[dim] for dim in group) for group in groups)
    return lengths, tuple(groups.index(group) for group in _rows(order))


def _in_two(shape: Sequence[int], order: Sequence[int], most: int) -> list[Transposed]:
    for first in permutations(range(len(shape))) if len(shape) <= _MOST_SEARCHED else ():
        steps = [joined(shape, first), joined([shape[dim] for dim in first], [first.index(dim) for dim in order])]
        if all(len(lengths) <= most for lengths, _ in steps):
            return steps
    return []


def _in_several(shape: Sequence[int], order: Sequence[int], most: int) -> Iterator[Transposed]:
    """Each brings as many dimensions as it can to their place at the front."""
    while list(order) != sorted(order):
        steps = ([*order[:count], *sorted(order[count:])] for count in range(len(order), 0, -1))
        step = next(step for step in steps if len(joined(shape, step)[0]) <= most)
        yield joined(shape, step)
        shape, order = [shape[dim] for dim in step], [step.index(dim) for dim in order]


def _rows(order: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """The dimensions that follow one another, row by row."""
    start = 0
    for end in range(1, len(order) + 1):
        if end == len(order) or order[end] != order[end - 1] + 1:
            yield tuple(order[start:end])
            start = end
