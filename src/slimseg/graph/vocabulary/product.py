"""The matrix product of two activations, as in attention."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from slimseg.graph.shapes import Shape
from slimseg.graph.vocabulary.operator import Operator


class MatMul(nn.Module):
    """Matrix products of two tensors over their last two dimensions, one for each position of the dimensions before.

    (..., M, K) and (..., K, N), or with `transposed` (..., N, K), to (..., M, N). The leading dimensions are those of
    both tensors: no dimension is broadcast.
    """

    def __init__(self, transposed: bool = False) -> None:
        super().__init__()
        self.transposed = transposed

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.matmul(a, b.mT if self.transposed else b)

    def extra_repr(self) -> str:
        return f"transposed={self.transposed}"


def _shape(layer: MatMul, shapes: Sequence[Shape]) -> Shape:
    first, second = shapes
    *leading, rows, depth = first
    columns, other = second[-2:] if layer.transposed else second[:-3:-1]
    if len(first) < 3 or second[:-2] != tuple(leading) or depth != other:
        raise ValueError(f"{first} and {second} do not fit together")
    return (*leading, rows, columns)


def _macs(layer: MatMul, inputs: Sequence[Shape], output: Shape) -> int:
    return math.prod(output) * inputs[0][-1]


OPERATORS = (Operator(MatMul, _shape, _macs),)
