"""Matrix products of two activations."""

from __future__ import annotations

from ai_edge_litert import schema_py_generated as tflite

from slimseg.graph import ops
from slimseg.runtimes.litert.writing.lowering.step import Lowerings, Op, Options, Step, in_file_order, in_order
from slimseg.tflite.schema import ModelBuilder


def matrix_product(builder: ModelBuilder, step: Step, layer: ops.MatMul) -> int:
    (first, _), (second, _) = (in_order(builder, step, number) for number in (0, 1))
    options = tflite.BatchMatMulOptionsT()
    options.adjX, options.adjY = False, layer.transposed

    def product(name: str, shape: tuple[int, ...]) -> int:
        target = builder.tensor(name, shape)
        builder.operator(Op.BATCH_MATMUL, (first, second), target, options, Options.BatchMatMulOptions)
        return target

    return in_file_order(builder, step, product)


LOWERINGS: Lowerings = {ops.MatMul: matrix_product}
