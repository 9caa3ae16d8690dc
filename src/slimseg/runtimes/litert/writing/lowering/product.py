"""Matrix products of two activations."""

from __future__ import annotations

from dataclasses import replace

from ai_edge_litert import schema_py_generated as tflite

from slimseg.graph import ops
from slimseg.runtimes.litert.writing.lowering.step import Lowerings, Op, Options, Step, reshape_operator, unary
from slimseg.tflite.schema import ModelBuilder


def matrix_product(builder: ModelBuilder, step: Step, layer: ops.MatMul) -> int:
    row, column = step.orders[1][-2:]
    options = tflite.BatchMatMulOptionsT()
    options.adjX, options.adjY = False, layer.transposed != (row > column)  # the second may be stored transposed
    first, second = step.inputs
    if first == second:  # a product of a value with itself ends the process of LiteRT's GPU delegate: a copy helps
        copy = reshape_operator(builder, second, f"{step.name}_copy", step.input_shapes[1])
        step = replace(step, inputs=(first, copy))
    return unary(builder, step, Op.BATCH_MATMUL, options, Options.BatchMatMulOptions)


LOWERINGS: Lowerings = {ops.MatMul: matrix_product}
