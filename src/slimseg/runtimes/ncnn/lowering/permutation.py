"""Transposes of any number of dimensions, though ncnn's Permute takes four.

Dimensions that stay neighbours are moved as one: to cut a map into windows, (8, 7, 8, 7, C) becomes (8, 8, 7, 7, C),
and 7 and C stay together. Where this leaves more than four, two Permutes follow one another: windows, then heads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import permutations

from slimseg.errors import Unsupported
from slimseg.runtimes.ncnn.lowering.step import MOST_DIMS, Shape, as_shape, volume
from slimseg.runtimes.ncnn.net import Net

_MOST_PARTS = 7  # that are searched for an order in between: 5040 orders
# Permute's orders by index: the source's dimensions as the result has them, innermost first (w is torch's last).
_ORDERS = {
    2: ("wh", "hw"),
    3: ("whc", "hwc", "wch", "cwh", "hcw", "chw"),
    4: (
        *("whdc", "hwdc", "wdhc", "dwhc", "hdwc", "dhwc", "whcd", "hwcd", "wchd", "cwhd", "hcwd", "chwd"),
        *("wdch", "dwch", "wcdh", "cwdh", "dcwh", "cdwh", "hdcw", "dhcw", "hcdw", "chdw", "dchw", "cdhw"),
    ),
}
_NAMES = {2: "hw", 3: "chw", 4: "cdhw"}  # names of torch's dimensions, without batch
PERMUTATIONS: dict[tuple[int, ...], int] = {
    order: _ORDERS[rank].index("".join(_NAMES[rank][dim] for dim in reversed(order)))
    for rank in _NAMES
    for order in permutations(range(rank))
}


def permute(net: Net, source: int, name: str, order: Sequence[int], shape: Shape | None = None) -> int:
    """The dimensions of a blob in another order; of its values in `shape`, which has the batch, if that is given.

    A Reshape suffices if only dimensions of length 1 move. A result of more than four dimensions has them joined.
    """
    if shape is None:
        shape = net.shape(source)
    elif shape[0] == 1 and order[0] == 0:
        shape, order = shape[1:], [dim - 1 for dim in order[1:]]
    result = tuple(shape[dim] for dim in order)
    moved = [dim for dim in order if shape[dim] > 1]
    if moved == sorted(moved):
        return as_shape(net, source, result, name) if len(result) <= MOST_DIMS else source
    if len(shape) <= MOST_DIMS:
        return _plain(net, source, name, order, shape)
    lengths, places = _joined([shape[dim] for dim in sorted(moved)], [sorted(moved).index(dim) for dim in moved])
    return _in_steps(net, source, name, lengths, places)


def _plain(net: Net, source: int, name: str, order: Sequence[int], shape: Shape) -> int:
    whole = as_shape(net, source, shape, f"{name}_split")
    return net.add("Permute", name, (whole,), [shape[dim] for dim in order], {0: PERMUTATIONS[tuple(order)]})


def _in_steps(net: Net, source: int, name: str, shape: Shape, order: Sequence[int]) -> int:
    if len(shape) <= MOST_DIMS:
        return _plain(net, source, name, order, shape)
    for first in permutations(range(len(shape))) if len(shape) <= _MOST_PARTS else ():
        second = [first.index(dim) for dim in order]
        between = [shape[dim] for dim in first]
        steps = _joined(shape, first), _joined(between, second)
        if all(len(lengths) <= MOST_DIMS for lengths, _ in steps):
            (lengths, places), (more_lengths, more_places) = steps
            moved = _plain(net, source, f"{name}_first", places, lengths)
            return _plain(net, moved, name, more_places, more_lengths)
    raise Unsupported(f"{name}: ncnn's Permute cannot move {shape} to the order {tuple(order)} in two steps")


def _joined(shape: Sequence[int], order: Sequence[int]) -> tuple[Shape, tuple[int, ...]]:
    """The lengths of dimensions, and their order, with those joined that follow one another before and after."""
    groups = sorted(_rows(order))
    lengths = tuple(volume([shape[dim] for dim in group]) for group in groups)
    return lengths, tuple(groups.index(group) for group in _rows(order))


def _rows(order: Sequence[int]) -> Iterator[tuple[int, ...]]:
    start = 0
    for end in range(1, len(order) + 1):
        if end == len(order) or order[end] != order[end - 1] + 1:
            yield tuple(order[start:end])
            start = end
