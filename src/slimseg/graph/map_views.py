"""Views of a map: values that hold it in another arrangement, as the tokens of transformers do.

For each of its dimensions, a view lists the dimensions of the map that are flattened into it: (N, H·W, C) is
((), (2, 3), (1,)). Dimensions of length 1, such as the batch, are not listed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, fx, nn

from slimseg.graph import ops
from slimseg.graph.graph import Graph
from slimseg.graph.shapes import Shape

Groups = tuple[tuple[int, ...], ...]
CHANNELS, PIXELS = 1, (2, 3)


@dataclass(frozen=True)
class View:
    """A value that holds the values of `map` (N, C, H, W) in the arrangement `groups`."""

    map: fx.Node
    groups: Groups

    @property
    def channel_dim(self) -> int | None:
        """The dimension that holds the channels and nothing else."""
        return self.groups.index((CHANNELS,)) if (CHANNELS,) in self.groups else None

    def dims(self, own: Sequence[int]) -> tuple[int, ...]:
        """The map's dimensions in some dimensions of the view."""
        return tuple(sorted(dim for each in own for dim in self.groups[each]))


def long(dims: Sequence[int], lengths: Shape) -> tuple[int, ...]:
    return tuple(dim for dim in dims if lengths[dim] > 1)


def own_groups(shape: Shape) -> Groups:
    """The arrangement of a map itself."""
    return tuple((dim,) if length > 1 and dim > 0 else () for dim, length in enumerate(shape))


def regrouped(order: Sequence[int], wanted: Shape, lengths: Shape) -> Groups | None:
    """The map's dimensions `order` as groups of the lengths `wanted`; None if a dimension would be split."""
    rest, groups = list(order), []
    for length in wanted:
        group: list[int] = []
        while math.prod(lengths[dim] for dim in group) < length and rest:
            group.append(rest.pop(0))
        if math.prod(lengths[dim] for dim in group) != length:
            return None
        groups.append(tuple(group))
    return None if rest else tuple(groups)


def reduced(groups: Groups, layer: ops.Reduce) -> Groups:
    """The arrangement of a reduction of a view."""
    return tuple(
        () if dim in layer.dims else group for dim, group in enumerate(groups) if layer.keepdim or dim not in layer.dims
    )


def permutation(groups: Groups) -> tuple[int, ...] | None:
    """The order of a map's dimensions in a view of four dimensions; None if some are flattened."""
    if len(groups) != 4 or any(len(group) > 1 for group in groups):
        return None
    short = iter(dim for dim in range(4) if all(dim not in group for group in groups))
    return tuple(group[0] if group else next(short) for group in groups)


def with_short(dims: tuple[int, ...], lengths: Shape) -> tuple[int, ...]:
    """Dimensions of a map; both of its pixels' if the other one has length 1."""
    if not dims or not set(long(PIXELS, lengths)) <= set(dims) or not set(PIXELS) & set(dims):
        return dims
    return tuple(sorted({*dims, *PIXELS}))


def together(first: View, second: View, graph: Graph) -> Groups | None:
    """The arrangement of a sum of two views; None if they hold their maps in different arrangements."""
    groups = []
    for one, other in zip(first.groups, second.groups, strict=True):
        if one and other and one != other:
            return None
        groups.append(one or other)
    for dim in range(1, 4):
        lengths = {graph.shape(view.map)[dim] for view in (first, second)} - {1}
        if len(lengths) > 1:
            return None
    held = [dim for group in groups for dim in group]
    return tuple(groups) if len(held) == len(set(held)) else None


def on_map(value: Tensor, groups: Groups, lengths: Shape) -> Tensor:
    """A constant that broadcasts to a view, as one that broadcasts to the map: (C, H, W), or a single number."""
    if value.numel() == 1:
        return value
    whole = value.detach().reshape((1,) * (len(groups) - value.ndim) + tuple(value.shape))
    order: list[int] = []
    apart: list[int] = []
    for length, group in zip(whole.shape, groups, strict=True):
        order += group
        apart += [lengths[dim] if length > 1 else 1 for dim in group]
    full = [*order, *(dim for dim in range(1, 4) if dim not in order)]
    split = whole.reshape([*apart, *(1 for _ in range(3 - len(apart)))])
    turned = split.permute([full.index(dim) for dim in range(1, 4)]).contiguous()
    return nn.Parameter(turned) if isinstance(value, nn.Parameter) else turned
