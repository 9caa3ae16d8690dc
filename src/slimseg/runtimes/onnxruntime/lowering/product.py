"""Matrix products of two activations."""

from __future__ import annotations

from slimseg.graph import ops
from slimseg.runtimes.onnxruntime.lowering.step import Lowerings, Step


def matrix_product(step: Step, layer: ops.MatMul) -> str:
    first, second = step.inputs
    if layer.transposed:
        *outer, rows, columns = step.input_shapes[1]
        perm = (*range(len(outer)), len(outer) + 1, len(outer))
        second = step.inner("Transpose", "turned", (second,), (*outer, columns, rows), perm=perm)
    return step.add("MatMul", (first, second))


LOWERINGS: Lowerings = {ops.MatMul: matrix_product}
