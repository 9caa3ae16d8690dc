"""Matrix products of two activations."""

from __future__ import annotations

from slimseg.graph import ops
from slimseg.runtimes.coreml.lowering.step import Lowerings, Step, Var


def matrix_product(step: Step, layer: ops.MatMul) -> Var:
    first, second = step.inputs
    return step.mb.matmul(x=first, y=second, transpose_y=layer.transposed, name=step.name)


LOWERINGS: Lowerings = {ops.MatMul: matrix_product}
