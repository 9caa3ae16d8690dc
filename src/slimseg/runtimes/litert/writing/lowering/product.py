"""Matrix products of two activations."""

from __future__ import annotations

from ai_edge_litert import schema_py_generated as tflite

from slimseg.graph import ops
from slimseg.runtimes.litert.writing.lowering.step import Lowerings, Op, Options, Step, unary
from slimseg.tflite.schema import ModelBuilder


def matrix_product(builder: ModelBuilder, step: Step, layer: ops.MatMul) -> int:
    row, column = step.orders[1][-2:]
    options = tflite.BatchMatMulOptionsT()
    options.adjX, options.adjY = False, layer.transposed != (row > column)  # the second may be stored transposed
    return unary(builder, step, Op.BATCH_MATMUL, options, Options.BatchMatMulOptions)


LOWERINGS: Lowerings = {ops.MatMul: matrix_product}
