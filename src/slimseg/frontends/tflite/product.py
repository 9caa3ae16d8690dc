"""Matrix products of two activations."""

from __future__ import annotations

import numpy as np
from torch import nn

from slimseg.frontends.tflite.value import Call, Value, filled
from slimseg.graph import ops


def matrix_product(call: Call) -> Value:
    """BATCH_MATMUL over the last two dimensions of the file's tensors; a constant matrix is a linear layer."""
    first = _matrices(call, 0, bool(call.option("adjX")))
    transposed = bool(call.option("adjY"))
    if not call.is_value(1):
        return _linear(call, first, transposed)
    second = _matrices(call, 1, False)
    if first.rank < 3 or first.node_shape[:-2] != second.node_shape[:-2]:
        raise call.unknown("multiplies vectors, or matrices that are broadcast")
    return call.result(ops.MatMul(transposed), first, second)


def _matrices(call: Call, position: int, transposed: bool) -> Value:
    """An operand whose node has the file's order of dimensions."""
    value = call.in_any_order(position)
    if transposed:
        *leading, row, column = value.order
        value = Value(value.node, (*leading, column, row))
    return call.ordered(value, tuple(range(value.rank)))


def _linear(call: Call, source: Value, transposed: bool) -> Value:
    matrix = call.constant(1)
    if matrix.ndim > 2 and matrix.shape[:-2] == (1,) * (matrix.ndim - 2):
        matrix = matrix.reshape(matrix.shape[-2:])
    if matrix.ndim != 2:
        raise call.unknown(f"multiplies by matrices of {matrix.shape}")
    weight = np.ascontiguousarray(matrix if transposed else matrix.T)
    return call.result(filled(nn.Linear(weight.shape[1], weight.shape[0], bias=False), weight, None), source)
