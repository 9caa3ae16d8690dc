"""Arithmetic on two activations, or on an activation and a constant."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from slimseg.frontends.tflite.value import Array, Call, Value, in_order, natural
from slimseg.graph import ops


def binary(
    together: Callable[[], nn.Module],
    with_constant: Callable[[Tensor], nn.Module | None],
    swapped: Callable[[Tensor], nn.Module | None],
) -> Callable[[Call], Value]:
    """A handler for two operands: `with_constant` if the second is a constant, `swapped` if the first is."""

    def handler(call: Call) -> Value:
        def computed(name: str) -> Value:
            if call.is_value(0) and call.is_value(1):
                return call.result(together(), *_alike(call), name=name)
            position = 1 if call.is_value(0) else 0
            operand = _operand(call, 1 - position)
            layer = (with_constant if position else swapped)(_constant(call, position, operand))
            if layer is None:
                raise call.unknown("computes with a constant, which has no counterpart in slimseg")
            return call.result(layer, operand, name=name)

        return call.activated(computed)

    return handler


def _operand(call: Call, position: int) -> Value:
    """The activation that is combined with a constant, with as many dimensions as the result."""
    value = call.raw(position)
    value = value if value.space is None else call.value(position, spaced=True)
    return _lifted(call, value, len(call.output_shape)) if value.rank < len(call.output_shape) else value


def _alike(call: Call) -> tuple[Value, Value]:
    """Two activations with the same order and rank."""
    first, second = call.raw(0), call.raw(1)
    if first.order == second.order and first.space is None and second.space is None:
        return first, second
    if first.space != second.space:
        raise call.unknown("mixes a map with one between SPACE_TO_BATCH and BATCH_TO_SPACE")
    first, second = call.value(0, spaced=True), call.value(1, spaced=True)
    rank = max(first.rank, second.rank)
    return _lifted(call, first, rank), _lifted(call, second, rank)


def _lifted(call: Call, value: Value, rank: int) -> Value:
    """A tensor of fewer dimensions, with ones in front as in broadcasting, in the file's order."""
    if value.rank == rank:
        return value
    shape = (1,) * (rank - value.rank) + tuple(value.node_shape[dim] for dim in value.order)
    wanted = tuple(shape[natural(rank).index(dim)] for dim in range(rank))
    return call.result(ops.Reshape(wanted), value, name=f"{call.name}_lifted", like=Value(value.node, natural(rank)))


def _constant(call: Call, position: int, operand: Value) -> Tensor:
    constant = call.constant(position)
    if constant.ndim > operand.rank or constant.shape[: 1 + constant.ndim - operand.rank] not in ((), (1,)):
        raise call.unknown(f"works with a constant of {constant.shape}")
    return in_order(constant, operand.order)


def _learnt(value: Tensor) -> Tensor:
    """A constant per channel was learnt and stays trainable; a single number was written by hand and stays fixed."""
    return nn.Parameter(value) if value.numel() > 1 else value


def _scalar(value: Tensor) -> float | None:
    return float(value) if value.numel() == 1 and math.isfinite(float(value)) else None


def _below(value: Tensor) -> nn.Module | None:
    """max(x, value)."""
    limit = _scalar(value)
    return None if limit is None else nn.ReLU() if limit == 0 else nn.Hardtanh(limit, math.inf)


def _above(value: Tensor) -> nn.Module | None:
    limit = _scalar(value)
    return None if limit is None else nn.Hardtanh(-math.inf, limit)


add = binary(ops.Add, lambda c: ops.Affine(shift=_learnt(c)), lambda c: ops.Affine(shift=_learnt(c)))
subtract = binary(
    ops.Subtract, lambda c: ops.Affine(shift=_learnt(-c)), lambda c: ops.Affine(torch.tensor(-1.0), _learnt(c))
)
multiply = binary(ops.Multiply, lambda c: ops.Affine(_learnt(c)), lambda c: ops.Affine(_learnt(c)))
divide = binary(ops.Divide, lambda c: ops.Affine(_learnt(1 / c)), lambda c: None)
maximum = binary(ops.Maximum, _below, _below)
minimum = binary(ops.Minimum, _above, _above)


def function(name: str) -> Callable[[Call], Value]:
    return lambda call: call.result(
        ops.Unary(name), call.raw() if call.raw().space is None else call.value(spaced=True)
    )


def squared_difference(call: Call) -> Value:
    difference = call.result(ops.Subtract(), *_alike(call), name=f"{call.name}_difference")
    return call.result(ops.Unary("square"), difference)


def power(call: Call) -> Value:
    exponent: Array = call.constant(1)
    number = float(exponent.reshape(-1)[0]) if exponent.size == 1 else math.nan
    value = call.in_any_order()
    if number == 3:
        square = call.result(ops.Unary("square"), value, name=f"{call.name}_square")
        return call.result(ops.Multiply(), square, value)
    if number not in ops.Unary.POWERS:
        raise call.unknown("raises to a power other than 3, 2, 0.5 or -0.5")
    return call.result(ops.Unary(ops.Unary.POWERS[number]), value)


def add_all(call: Call) -> Value:
    """ADD_N."""
    total = call.value(0)
    for position in range(1, len(call.inputs)):
        last = position == len(call.inputs) - 1
        total = call.result(
            ops.Add(), total, call.value(position), name=call.name if last else f"{call.name}_{position}"
        )
    return total
