"""Operators that take values by their positions: rolls, flips, pads, gathers, repetitions."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, fx
from torch.nn import functional as F

from slimseg.frontends.aten.call import Call

_MOST_SLICES = 32  # for more, a product with a matrix of zeros and ones
_MOST_POSITIONS = 1 << 14
_LONGEST = 1024  # positions of such a matrix


def taken(x: Tensor, dim: int, positions: Sequence[int]) -> Tensor:
    """The values at `positions` along a dimension, as slices one after another.

    Raises:
        NotImplementedError: there are too many.
    """
    length, dim = x.shape[dim], dim % x.ndim
    if max(length, len(positions)) > _MOST_POSITIONS:
        raise NotImplementedError("too many positions")
    positions = [position % length for position in positions]
    if positions == list(range(length)):
        return x
    parts = list(_runs(positions))
    if len(parts) <= _MOST_SLICES:
        slices = [x[(slice(None),) * dim + (part,)] for part in parts]
        return torch.cat(slices, dim) if len(slices) > 1 else slices[0]
    if max(length, len(positions)) > _LONGEST:
        raise NotImplementedError("too many slices")
    numbers, wanted = torch.arange(length), torch.cat([torch.full((1,), each) for each in positions])
    return multiplied(x, dim, (wanted.reshape(-1, 1) == numbers).float())


def multiplied(x: Tensor, dim: int, matrix: Tensor) -> Tensor:
    """`matrix` (results, length) times every column of values along a dimension."""
    if dim % x.ndim == x.ndim - 1:
        return F.linear(x, matrix)
    return F.linear(x.transpose(dim, -1), matrix).transpose(dim, -1)


def _runs(positions: Sequence[int]) -> Iterator[slice]:
    """The slices with positive steps that the positions consist of."""
    start = 0
    while start < len(positions):
        stop, step = start + 1, 1
        if stop < len(positions) and positions[stop] > positions[start]:
            step = positions[stop] - positions[start]
            while stop < len(positions) and positions[stop] - positions[stop - 1] == step:
                stop += 1
            if stop == start + 2 and step > 1:
                stop, step = start + 1, 1  # two single positions
        yield slice(positions[start], positions[stop - 1] + 1, step)
        start = stop


def roll(self: Tensor, shifts: Sequence[int], dims: Sequence[int] = ()) -> Tensor:
    if not dims:
        return roll(self.reshape(1, -1), shifts, (1,)).reshape(self.shape)
    for shift, dim in zip(shifts, dims, strict=True):
        first = -shift % self.shape[dim]
        rest = self.shape[dim] - first
        self = torch.cat((self.narrow(dim, first, rest), self.narrow(dim, 0, first)), dim) if first else self
    return self


def flip(self: Tensor, dims: Sequence[int]) -> Tensor:
    for dim in dims:
        self = taken(self, dim, range(self.shape[dim])[::-1])
    return self


def pad(self: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    """Reflecting, replicating and circular padding, from the last dimension to the first."""
    if mode == "constant":
        return constant_pad(self, pad, value or 0.0)
    for number, (before, after) in enumerate(zip(pad[::2], pad[1::2], strict=True)):
        dim = self.ndim - 1 - number
        length = self.shape[dim]
        if before + after > _MOST_POSITIONS:
            raise NotImplementedError("too many positions")
        self = taken(self, dim, [_source(position, length, mode) for position in range(-before, length + after)])
    return self


def _source(position: int, length: int, mode: str) -> int:
    """The pixel of which a pixel at a position outside the map is a copy."""
    if mode == "replicate":
        return min(max(position, 0), length - 1)
    if mode == "circular":
        return position % length
    position = abs(position)
    return position if position < length else 2 * (length - 1) - position


def constant_pad(self: Tensor, pad: Sequence[int], value: float = 0.0) -> Tensor:
    """Constant padding of tensors that are no maps, and of the first dimensions: crops, and constants beside them."""
    for number, amounts in enumerate(zip(pad[::2], pad[1::2], strict=True)):
        dim = self.ndim - 1 - number
        length = self.shape[dim]
        start, stop = (max(0, -amounts[0]), length - max(0, -amounts[1]))
        self = self.narrow(dim, start, stop - start)
        before, after = (
            [torch.full((*self.shape[:dim], amount, *self.shape[dim + 1 :]), value)] if amount > 0 else []
            for amount in amounts
        )
        self = torch.cat([*before, self, *after], dim) if before or after else self
    return self


def reflection_pad(self: Tensor, padding: Sequence[int]) -> Tensor:
    return pad(self, padding, "reflect")


def replication_pad(self: Tensor, padding: Sequence[int]) -> Tensor:
    return pad(self, padding, "replicate")


def with_positions(call: Call) -> dict[str, object]:
    """The arguments of a call, positions that are constants as numbers."""

    def listed(value: object) -> object:
        if isinstance(value, list | tuple):
            return [listed(each) for each in value]
        tensor = call.parameters[value].tensor if isinstance(value, fx.Node) and value in call.parameters else None
        if tensor is None or tensor.is_floating_point() or tensor.numel() > _MOST_POSITIONS:
            return value
        return (tensor.nonzero()[:, 0] if tensor.dtype == torch.bool and tensor.ndim == 1 else tensor).tolist()

    given = {name: value if name == "values" else listed(value) for name, value in call.arguments.items()}
    mask = _mask(call["indices"]) if "indices" in given else None
    return given if mask is None else {**given, "indices": [mask]}


def _mask(indices: Sequence[object]) -> fx.Node | None:
    """The mask whose true positions are all of the indices, as in `x[torch.where(mask)]`."""
    parts = [each for each in indices if isinstance(each, fx.Node) and each.target is operator.getitem]
    sources = {part.args[0] for part in parts}
    if len(parts) != len(indices) or len(sources) != 1 or [part.args[1] for part in parts] != list(range(len(parts))):
        return None
    (source,) = sources
    named = isinstance(source, fx.Node) and str(source.target) in ("aten.where.default", "aten.nonzero_numpy.default")
    mask = source.args[0] if isinstance(source, fx.Node) and named else None
    return mask if isinstance(mask, fx.Node) and mask.meta["val"].ndim == len(parts) else None


def index(self: Tensor, indices: Sequence[object]) -> Tensor:
    """Positions along neighbouring dimensions: a list for each of them, or a grid as x[rows[:, None], columns]."""
    given = [(dim, np.asarray(each, dtype=np.int64)) for dim, each in enumerate(indices) if each is not None]
    dims, positions = [dim for dim, _ in given], [each for _, each in given]
    if dims != list(range(dims[0], dims[0] + len(dims))):
        raise NotImplementedError("positions of dimensions apart")
    if all(each.ndim == 1 for each in positions):
        lengths = self.shape[dims[0] : dims[-1] + 1]
        places = np.ravel_multi_index([each % size for each, size in zip(positions, lengths, strict=True)], lengths)
        return taken(self.flatten(dims[0], dims[-1]), dims[0], places.tolist())
    for number, each in enumerate(positions):
        shape = (1,) * (len(dims) - each.ndim) + each.shape
        if shape != tuple(each.size if place == number else 1 for place in range(len(dims))):
            raise NotImplementedError("positions that are no grid")
        self = taken(self, dims[number], each.reshape(-1).tolist())
    return self


def index_put(self: Tensor, indices: Sequence[object], values: Tensor, accumulate: bool = False) -> Tensor:
    """New values at a list of positions along one dimension, or one new value wherever a mask is true."""
    if isinstance(mask := indices[0], Tensor) and mask.dtype == torch.bool and len(indices) == values.numel() == 1:
        return torch.where(mask.reshape(*mask.shape, *[1] * (self.ndim - mask.ndim)), values, self)
    ((dim, given),) = [(dim, each) for dim, each in enumerate(indices) if each is not None]
    positions = np.asarray(given, dtype=np.int64)
    if accumulate or positions.ndim != 1:
        raise NotImplementedError("sums, or tables of positions")
    length, shape = self.shape[dim], list(self.shape)
    shape[dim] = len(positions)
    replaced = {place % length: length + number for number, place in enumerate(positions.tolist())}
    both = torch.cat((self, values.expand(shape)), dim)
    return taken(both, dim, [replaced.get(place, place) for place in range(length)])


def index_select(self: Tensor, dim: int, index: Sequence[int]) -> Tensor:
    return taken(self, dim, index)


def repeat(self: Tensor, repeats: Sequence[int]) -> Tensor:
    result = self.reshape((1,) * (len(repeats) - self.ndim) + tuple(self.shape))
    for dim, times in enumerate(repeats):
        result = _repeated(result, dim, times)
    return result


def _repeated(x: Tensor, dim: int, times: int) -> Tensor:
    if times == 1:
        return x
    if x.shape[dim] == 1 and dim > 0:
        return x.expand(*x.shape[:dim], times, *x.shape[dim + 1 :])
    if times > _MOST_SLICES:
        raise NotImplementedError("too many copies")
    return torch.cat([x] * times, dim)


def expand(self: Tensor, size: Sequence[int], implicit: bool = False) -> Tensor:
    """Multiplied by ones that have the wanted shape."""
    full = (1,) * (len(size) - self.ndim) + tuple(self.shape)
    shape = [max(pair) for pair in zip(full, size, strict=True)]  # a size of -1 is that of the tensor
    return self.reshape(full) * torch.ones((1, *shape[1:]))


def expand_as(self: Tensor, other: Tensor) -> Tensor:
    return expand(self, other.shape)


def repeat_interleave(self: Tensor, repeats: int, dim: int | None = None, output_size: int | None = None) -> Tensor:
    if dim is None:
        return repeat_interleave(self.reshape(-1), repeats, 0)
    dim %= self.ndim
    times = (1,) * (dim + 1) + (repeats,) + (1,) * (self.ndim - dim - 1)
    return repeat(self.unsqueeze(dim + 1), times).flatten(dim, dim + 1)


def slice_scatter(
    self: Tensor, src: Tensor, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Tensor:
    """The values before the slice, those that replace it, and the values after it; or one by one, if it has gaps."""
    dim, length = dim % self.ndim, self.shape[dim]
    first, last, _ = slice(start, end).indices(length)
    if step != 1:
        replaced = {place: length + number for number, place in enumerate(range(first, last, step))}
        return taken(torch.cat((self, src), dim), dim, [replaced.get(place, place) for place in range(length)])
    before = [self.narrow(dim, 0, first)] if first else []
    after = [self.narrow(dim, last, length - last)] if last < length else []
    return torch.cat([*before, src, *after], dim) if before or after else src


def unfold(self: Tensor, dimension: int, size: int, step: int) -> Tensor:
    """Windows along one dimension, which may overlap; the positions in a window become the last dimension."""
    dim = dimension % self.ndim
    count = (self.shape[dim] - size) // step + 1
    places = [window * step + place for window in range(count) for place in range(size)]
    shape = (*self.shape[:dim], count, size, *self.shape[dim + 1 :])
    return taken(self, dim, places).reshape(shape).movedim(dim + 1, -1)


def select_scatter(self: Tensor, src: Tensor, dim: int, index: int) -> Tensor:
    index %= self.shape[dim]
    return slice_scatter(self, src.unsqueeze(dim), dim, index, index + 1)


TABLE = {
    "roll.default": roll,
    "flip.default": flip,
    "pad.default": pad,
    "constant_pad_nd.default": constant_pad,
    "reflection_pad1d.default": reflection_pad,
    "reflection_pad2d.default": reflection_pad,
    "replication_pad1d.default": replication_pad,
    "replication_pad2d.default": replication_pad,
    "index.Tensor": index,
    "index_put.default": index_put,
    "index_select.default": index_select,
    "repeat.default": repeat,
    "expand.default": expand,
    "expand_as.default": expand_as,
    "repeat_interleave.self_int": repeat_interleave,
    "slice_scatter.default": slice_scatter,
    "select_scatter.default": select_scatter,
    "unfold.default": unfold,
}
_POSITIONED = ("index.Tensor", "index_put.default", "index_put_.default", "index_select.default")
PREPARED = dict.fromkeys(_POSITIONED, with_positions)
