"""The order in which a file stores the dimensions of every value.

TFLite's convolutions, poolings and resizes need maps as (N, H, W, C), where the graph has (N, C, H, W). Most other
operators work in any order, so a value is transposed only when an operator needs it in another order than the one that
it has:

    tokens = map.flatten(2).transpose(1, 2)     (N, H, W, C) is reshaped to (N, H·W, C): nothing is transposed
    y = norm(map.permute(0, 2, 3, 1))           already the order of the file: no operator at all

An order gives, for every dimension of the file's tensor, the dimension of the graph's value that it holds. Every rule
here says, for one class of layers, in which orders it reads its inputs and in which order its result then is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from slimseg.graph import ops
from slimseg.graph.orders import TO_NHWC
from slimseg.graph.shapes import Shape

Order = tuple[int, ...]


@dataclass(frozen=True)
class Value:
    """A value's shape in the graph, and the order in which the file stores its dimensions."""

    shape: Shape
    order: Order
    is_constant: bool = False  # stored in every order that is needed, without transposes

    @property
    def stored(self) -> Shape:
        """The shape of the file's tensor."""
        return tuple(self.shape[dim] for dim in self.order)


@dataclass(frozen=True)
class Plan:
    """The orders in which a layer reads its inputs, and the order of its result."""

    inputs: tuple[Order, ...]
    result: Order


Rule = Callable[[Any, Sequence[Value], Shape], Plan]  # layer, inputs, the result's shape in the graph


def standard(rank: int) -> Order:
    """The order of slimseg's files: NHWC for four dimensions, the graph's own for any other number."""
    return TO_NHWC if rank == 4 else tuple(range(rank))


def plan(layer: nn.Module, inputs: Sequence[Value], shape: Shape) -> Plan:
    """The orders for one layer.

    Args:
        inputs: its inputs as they are stored.
        shape: of its result, in the graph.
    """
    return RULES.get(type(layer), _standard)(layer, inputs, shape)


def without(order: Order, dim: int, channels_last: bool = False) -> Order:
    """The order of a value after its dimension `dim`, of length 1, was dropped.

    Args:
        channels_last: as of the `Reshape` that drops it.
    """
    read, made = (standard(rank) if channels_last else tuple(range(rank)) for rank in (len(order), len(order) - 1))
    gone = read.index(dim)
    return tuple(made[place - (place > gone)] for place in map(read.index, order) if place != gone)


def _standard(layer: nn.Module, inputs: Sequence[Value], shape: Shape) -> Plan:
    return Plan(tuple(standard(len(each.shape)) for each in inputs), standard(len(shape)))


def _any(layer: nn.Module, inputs: Sequence[Value], shape: Shape) -> Plan:
    """One input, in any order."""
    order = inputs[0].order
    return Plan((order,), order) if len(order) == len(shape) else _as_in_graph(inputs, shape)


def _as_in_graph(inputs: Sequence[Value], shape: Shape) -> Plan:
    return Plan(tuple(tuple(range(len(each.shape))) for each in inputs), tuple(range(len(shape))))


def _same(layer: nn.Module, inputs: Sequence[Value], shape: Shape) -> Plan:
    """All inputs in one order: that for which the fewest values are transposed."""
    if {len(each.shape) for each in inputs} != {len(shape)}:
        return _as_in_graph(inputs, shape)
    usual = standard(len(shape))

    def cost(order: Order) -> tuple[int, bool]:
        turned = (each for each in inputs if each.order != order and not each.is_constant)
        return sum(math.prod(each.shape) for each in turned), order != usual

    order = min(dict.fromkeys(each.order for each in inputs), key=cost)
    return Plan((order,) * len(inputs), order)


def _with_last(order: Order, dim: int) -> Order:
    return (*(each for each in order if each != dim), dim)


def _softmax(layer: nn.Softmax, inputs: Sequence[Value], shape: Shape) -> Plan:
    order = inputs[0].order if layer.dim is None else _with_last(inputs[0].order, layer.dim % len(shape))
    return Plan((order,), order)


def _linear(layer: nn.Linear, inputs: Sequence[Value], shape: Shape) -> Plan:
    order = _with_last(inputs[0].order, len(shape) - 1)
    return Plan((order,), order)


def _product(layer: ops.MatMul, inputs: Sequence[Value], shape: Shape) -> Plan:
    """Matrices are the last two dimensions; the operator itself can transpose the second."""
    row, column = len(shape) - 2, len(shape) - 1
    leading = tuple(dim for dim in inputs[0].order if dim < row)
    first = (*leading, row, column)
    turned = inputs[1].order == (*leading, column, row)
    return Plan((first, (*leading, column, row) if turned else first), first)


def _grid_sample(layer: ops.GridSample, inputs: Sequence[Value], shape: Shape) -> Plan:
    """Positions end in (x, y)."""
    return Plan((TO_NHWC, (0, 1, 2, 3)), TO_NHWC)


def _normalise(layer: ops.Normalise, inputs: Sequence[Value], shape: Shape) -> Plan:
    return (_any if layer.groups == 1 else _standard)(layer, inputs, shape)


def _reduce(layer: ops.Reduce, inputs: Sequence[Value], shape: Shape) -> Plan:
    order = result = inputs[0].order
    if not layer.keepdim:
        for dim in sorted({each % len(order) for each in layer.dims}, reverse=True):
            result = without(result, dim)
    return Plan((order,), result)


def _transpose(layer: ops.Transpose, inputs: Sequence[Value], shape: Shape) -> Plan:
    order = inputs[0].order
    return Plan((order,), tuple(layer.dims.index(dim) for dim in order))


def _reshape(layer: ops.Reshape, inputs: Sequence[Value], shape: Shape) -> Plan:
    """The input as it is stored, if each group of dimensions that becomes another group is stored side by side."""
    (value,) = inputs
    read, made = (
        standard(rank) if layer.channels_last else tuple(range(rank)) for rank in map(len, (value.shape, shape))
    )
    before, after = [value.shape[dim] for dim in read], [shape[dim] for dim in made]
    places = [place for place in map(read.index, value.order) if before[place] > 1]
    parts = _parts(before, after)
    order: list[int] = []
    while places:
        source, target = next(part for part in parts if places[0] in part[0])
        if places[: len(source)] != source:
            return Plan((read,), made)
        places, order = places[len(source) :], order + [made[place] for place in target]
    return Plan((value.order,), _with_ones(order, shape, made))


def _with_ones(order: Sequence[int], shape: Shape, preferred: Order) -> Order:
    """`order` with the dimensions of length 1, which may be anywhere: the usual order, if it agrees."""
    for usual in (standard(len(shape)), preferred):
        if [dim for dim in usual if shape[dim] > 1] == list(order):
            return usual
    return (*(dim for dim, length in enumerate(shape) if length == 1), *order)


def _parts(before: Sequence[int], after: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """The smallest groups of dimensions with the same number of values before and after a reshape, without ones."""
    sources, targets = ([dim for dim, length in enumerate(shape) if length > 1] for shape in (before, after))
    found: list[tuple[list[int], list[int]]] = []
    while sources:
        source, target = [sources.pop(0)], [targets.pop(0)]
        while (wide := math.prod(before[dim] for dim in source)) != (made := math.prod(after[dim] for dim in target)):
            if wide < made:
                source.append(sources.pop(0))
            else:
                target.append(targets.pop(0))
        found.append((source, target))
    return found


_ANY = (*ops.PLAIN_ACTIVATIONS, ops.Unary, ops.Affine, ops.Cast, ops.Slice)
_SAME = (ops.Add, ops.Subtract, ops.Multiply, ops.Divide, ops.Maximum, ops.Minimum, ops.Concat)
RULES: dict[type[nn.Module], Rule] = {
    **dict.fromkeys(_ANY, _any),
    **dict.fromkeys(_SAME, _same),
    nn.Softmax: _softmax,
    nn.Linear: _linear,
    ops.MatMul: _product,
    ops.GridSample: _grid_sample,
    ops.Normalise: _normalise,
    ops.Reduce: _reduce,
    ops.Transpose: _transpose,
    ops.Reshape: _reshape,
}
