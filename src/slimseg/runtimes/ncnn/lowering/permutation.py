"""Transposes of any number of dimensions, though ncnn's Permute takes four."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

from slimseg.runtimes.ncnn.lowering.step import MOST_DIMS, Shape, as_shape
from slimseg.runtimes.ncnn.net import Net
from slimseg.runtimes.permutation import transposes

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
    *first, (lengths, places) = transposes(shape, order, MOST_DIMS)
    for number, (before, step) in enumerate(first):
        source = _plain(net, source, f"{name}_step{number}", step, before)
    return _plain(net, source, name, places, lengths)


def _plain(net: Net, source: int, name: str, order: Sequence[int], shape: Shape) -> int:
    whole = as_shape(net, source, shape, f"{name}_split")
    return net.add("Permute", name, (whole,), [shape[dim] for dim in order], {0: PERMUTATIONS[tuple(order)]})
