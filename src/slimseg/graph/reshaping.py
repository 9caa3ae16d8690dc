"""Reshapes at another input size: which lengths of the new shape follow the image, and which stay.

A reshape flattens neighbouring dimensions or splits one, so that its lengths fall into groups with equal products:

    (1, 12, 16, 160) to (1, 192, 5, 32)        1 to 1        12·16 to 192        160 to 5·32

Only groups that hold pixels change. One length takes all of them (192), two are a map of the image's aspect or a number
of windows and their length, which stays: 56 to 8·7 becomes 42 to 6·7.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from slimseg.graph.shapes import Shape

Scales = tuple[float, float]  # by which the image's height and width change


def at_other_size(source: Shape, target: Shape, new_source: Shape, scales: Scales) -> Shape | None:
    """The shape that takes the place of `target` where `source` has become `new_source`; None if there is none."""
    new: list[int] = []
    for sources, targets in _groups(source, target):
        lengths = tuple(target[dim] for dim in targets)
        before, after = ([shape[dim] for dim in sources] for shape in (source, new_source))
        changed = lengths if before == after else _split(lengths, math.prod(after), scales)
        if changed is None:
            return None
        new += changed
    return tuple(new)


def _groups(source: Shape, target: Shape) -> Iterator[tuple[range, range]]:
    """The smallest groups of neighbouring dimensions whose lengths have the same product on both sides."""
    first, second = 0, 0
    while first < len(source) or second < len(target):
        ends = [min(first + 1, len(source)), min(second + 1, len(target))]
        while (ours := math.prod(source[first : ends[0]])) != (theirs := math.prod(target[second : ends[1]])):
            ends[0 if ours < theirs else 1] += 1
        yield range(first, ends[0]), range(second, ends[1])
        first, second = ends


def _split(lengths: Shape, total: int, scales: Scales) -> Shape | None:
    """New lengths with the product `total`."""
    dims = [dim for dim, length in enumerate(lengths) if length > 1]
    if len(dims) > 2 or (not dims and total > 1):
        return None
    if len(dims) == 2:
        first, second = (lengths[dim] for dim in dims)
        pair = _as_map(first, second, total, scales) or _as_windows(first, second, total)
        if pair is None:
            return None
        new = dict(zip(dims, pair, strict=True))
    else:
        new = dict.fromkeys(dims, total)
    return tuple(new.get(dim, length) for dim, length in enumerate(lengths))


def _as_map(height: int, width: int, total: int, scales: Scales) -> tuple[int, int] | None:
    """The map of `total` pixels whose sides are less than a pixel away from those in proportion to the image's."""
    wanted = height * scales[0], width * scales[1]
    sides = [side for side in range(math.floor(wanted[0]), math.ceil(wanted[0]) + 1) if side and total % side == 0]
    fitting = [(side, total // side) for side in sides if abs(total / side - wanted[1]) < 1]
    return min(fitting, key=lambda pair: abs(pair[0] - wanted[0]), default=None)


def _as_windows(first: int, second: int, total: int) -> tuple[int, int] | None:
    """As many windows of the same length as there are now, or else the same number of other ones."""
    if total % second == 0:
        return total // second, second
    return (first, total // first) if total % first == 0 else None
