"""Matrix products of two activations."""

from __future__ import annotations

from slimseg.graph import ops
from slimseg.runtimes.ncnn.lowering.step import Lowerings, Step, as_map
from slimseg.runtimes.ncnn.net import Net


def matrix_product(net: Net, step: Step, layer: ops.MatMul) -> int:
    sources = tuple(as_map(net, step, number) for number in (0, 1))
    return net.add("MatMul", step.name, sources, step.shape, {0: int(layer.transposed)})


LOWERINGS: Lowerings = {ops.MatMul: matrix_product}
