"""Costs of an operator of an `.onnx` file: parameters, multiply-accumulates, bytes, counted as in `graph.costs`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from onnx import helper

from slimseg.runtimes.onnxruntime.file import WEIGHTED, Operator

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Cost:
    params: int
    macs: int
    memory_bytes: int


def cost(operator: Operator, inputs: Sequence[Shape], output: Shape, bytes_each: int = 4) -> Cost:
    """Cost for inputs and an output of these shapes (NCHW), whose values take `bytes_each` bytes."""
    learnt = [each for each in operator.constants if helper.tensor_dtype_to_np_dtype(each.kind).kind in "fi"]
    weights = [each for each in learnt if operator.op in WEIGHTED or each.kind not in _INDICES]
    params = sum(math.prod(each.shape) for each in weights)
    stored = sum(math.prod(each.shape) * helper.tensor_dtype_to_np_dtype(each.kind).itemsize for each in weights)
    values = sum(map(math.prod, inputs)) + math.prod(output)
    return Cost(params, _macs(operator, inputs, output), bytes_each * values + stored)


_INDICES = (6, 7)  # INT32 and INT64: shapes, axes and amounts of operators without weights


def _macs(operator: Operator, inputs: Sequence[Shape], output: Shape) -> int:
    """Every weight of a convolution is used once per pixel of the result, or of the input if it is transposed."""
    if operator.op == "MatMul" and len(inputs) == 2:
        return math.prod(output) * inputs[0][-1]
    if operator.op not in WEIGHTED or not operator.constants:
        return 0
    weight = math.prod(operator.constants[0].shape)
    if operator.op == "Conv":
        return weight * math.prod(output[2:])
    if operator.op == "ConvTranspose":
        return weight * math.prod(inputs[0][2:]) if inputs else 0
    return weight * math.prod(output[:-1])
