"""Sorting, and what depends on an order, by counting: the place of a value is the number of values before it."""

from __future__ import annotations

import functools
import operator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from slimseg.frontends.aten.call import Call
from slimseg.frontends.aten.decompositions import comparisons

_MOST_SORTED = 64  # values along a dimension; each is compared with each other
_MOST_COMPARED = 1 << 22  # pairs of values
_MOST_STEPS = 32  # of a running maximum or product


def sort(self: Tensor, dim: int = -1, descending: bool = False) -> tuple[Tensor, Tensor]:
    return _sorted(self, dim, range(self.shape[dim]), descending)


def sort_stable(
    self: Tensor, stable: bool | None = None, dim: int = -1, descending: bool = False
) -> tuple[Tensor, Tensor]:
    return sort(self, dim, descending)


def order(self: Tensor, dim: int = -1, descending: bool = False) -> Tensor:
    return sort(self, dim, descending)[1]


def order_stable(self: Tensor, stable: bool, dim: int = -1, descending: bool = False) -> Tensor:
    return sort(self, dim, descending)[1]


def largest(
    self: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True, places: bool = True
) -> tuple[Tensor, ...]:
    if k == 1:
        return (maximum_along if largest else minimum_along)(self, dim, True, places)
    return _sorted(self, dim, range(k), largest)


def maximum_along(self: Tensor, dim: int, keepdim: bool = False, places: bool = True) -> tuple[Tensor, ...]:
    """`places`: whether their positions are read, too."""
    values = torch.amax(self, dim, keepdim)
    return (values, torch.argmax(self, dim, keepdim)) if places else (values,)


def minimum_along(self: Tensor, dim: int, keepdim: bool = False, places: bool = True) -> tuple[Tensor, ...]:
    values = torch.amin(self, dim, keepdim)
    return (values, torch.argmin(self, dim, keepdim)) if places else (values,)


def bounds_along(self: Tensor, *, dim: int | None = None, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    if dim is None:
        raise NotImplementedError("over everything")
    return torch.amin(self, dim, keepdim), torch.amax(self, dim, keepdim)


def first_largest(self: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The index of the largest value of tensors of any rank, as channels of a map."""
    if dim is None:
        if keepdim:
            raise NotImplementedError("over everything")
        return torch.argmax(self.reshape(1, -1) if self.shape[0] != 1 else self.flatten(1), 1)
    dim %= self.ndim
    if self.ndim == 4 and dim:
        raise NotImplementedError("the handler's own")
    if dim == 0:
        return first_largest(self.unsqueeze(0), 1, keepdim).squeeze(0)
    moved = self.movedim(dim, 1)
    index = torch.argmax(moved.reshape(*moved.shape[:2], -1, 1), 1)
    rest = [length for each, length in enumerate(self.shape) if each != dim]
    return index.reshape([*rest[:dim], 1, *rest[dim:]] if keepdim else rest)


def first_smallest(self: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    return torch.argmax(self * -1.0, dim, keepdim)


def median(self: Tensor, dim: int, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    """The lower one of the two in the middle."""
    return smallest(self, (self.shape[dim] + 1) // 2, dim, keepdim)


def smallest(self: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    """The k-th smallest value, counted from 1."""
    values, places = _sorted(self, dim, range(k - 1, k), descending=False)
    return (values, places) if keepdim else (values.squeeze(dim), places.squeeze(dim))


def quantile(
    self: Tensor, q: float, dim: int | None = None, keepdim: bool = False, *, interpolation: str = "linear"
) -> Tensor:
    if dim is None or interpolation != "linear":
        raise NotImplementedError("over everything, or by another rule")
    place = q * (self.shape[dim] - 1)
    below = min(int(place), max(self.shape[dim] - 2, 0))
    pair = _sorted(self, dim, range(below, min(below + 2, self.shape[dim])), descending=False)[0]
    weights = torch.tensor([1 - (place - below), place - below][: pair.shape[dim]])
    shape = [-1 if each == dim % self.ndim else 1 for each in range(self.ndim)]
    return (pair * weights.reshape(shape)).sum(dim, keepdim=keepdim)


def _sorted(x: Tensor, dim: int, places: range, descending: bool) -> tuple[Tensor, Tensor]:
    """The values at some places of the order along a dimension, and where they were; equal ones keep their order."""
    dim %= x.ndim
    if dim == 0:
        values, index = _sorted(x.unsqueeze(0), 1, places, descending)
        return values.squeeze(0), index.squeeze(0)
    moved = x.movedim(dim, 1)
    rows = moved.reshape(*moved.shape[:2], -1)
    count = rows.shape[1]
    if count > _MOST_SORTED or count * rows[0].numel() > _MOST_COMPARED:
        raise NotImplementedError("many values")
    chosen = _chosen(rows, places, descending)
    numbers = torch.arange(count).float().reshape(1, 1, -1, 1)
    return tuple(  # type: ignore[return-value]
        (chosen * each).sum(2).reshape(moved.shape[0], len(places), *moved.shape[2:]).movedim(1, dim)
        for each in (rows.unsqueeze(1), numbers)
    )


def _chosen(rows: Tensor, places: range, descending: bool) -> Tensor:
    """(N, places, values, rest): 1 where a value has that place, and 0 elsewhere."""
    count = rows.shape[1]
    apart = torch.sign(rows.unsqueeze(1) - rows.unsqueeze(2))  # (N, value, other, rest)
    earlier = torch.ones(count, count).tril(-1).reshape(1, count, count, 1)
    before = F.relu(apart if descending else apart * -1.0) + (1.0 - torch.abs(apart)) * earlier
    rank = before.sum(2).unsqueeze(1)
    wanted = torch.tensor([*places]).float().reshape(1, -1, 1, 1)
    return F.relu(1.0 - torch.abs(rank - wanted))


def running(function: Any) -> Any:
    """A running product or maximum along a dimension."""

    def along(self: Tensor, dim: int) -> Tensor:
        if self.shape[dim] > _MOST_STEPS:
            raise NotImplementedError("many steps")
        parts = list(torch.split(self, 1, dim))
        for number in range(1, len(parts)):
            parts[number] = function(parts[number - 1], parts[number])
        return torch.cat(parts, dim)

    return along


def running_product(self: Tensor, dim: int, dtype: torch.dtype | None = None) -> Tensor:
    result: Tensor = running(operator.mul)(self, dim)
    return result


def running_maximum(self: Tensor, dim: int) -> tuple[Tensor]:
    return (running(torch.maximum)(self, dim),)


def running_minimum(self: Tensor, dim: int) -> tuple[Tensor]:
    return (running(torch.minimum)(self, dim),)


def bucket(self: Tensor, boundaries: Tensor, *, out_int32: bool = False, right: bool = False) -> Tensor:
    """How many boundaries lie below a value."""
    if boundaries.numel() > _MOST_SORTED or boundaries.numel() * self.numel() > _MOST_COMPARED:
        raise NotImplementedError("many boundaries")
    is_above = comparisons.greater_or_equal if right else comparisons.greater
    parts = [is_above(self, each) for each in torch.split(boundaries.float(), 1)]
    return functools.reduce(torch.add, parts)


def with_places(call: Call) -> dict[str, Any]:
    """The arguments of a call, and whether the positions that it returns are read."""
    is_read = any(part.args[1] == 1 and part.users for part in call.node.users)
    return {**call.arguments, "places": is_read}


TABLE = {
    "sort.default": sort,
    "sort.stable": sort_stable,
    "argsort.default": order,
    "argsort.stable": order_stable,
    "topk.default": largest,
    "max.dim": maximum_along,
    "min.dim": minimum_along,
    "aminmax.default": bounds_along,
    "argmax.default": first_largest,
    "argmin.default": first_smallest,
    "median.dim": median,
    "kthvalue.default": smallest,
    "quantile.scalar": quantile,
    "cumprod.default": running_product,
    "cummax.default": running_maximum,
    "cummin.default": running_minimum,
    "bucketize.Tensor": bucket,
}
PREPARED = dict.fromkeys(("max.dim", "min.dim", "topk.default"), with_places)
