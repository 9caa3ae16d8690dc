"""The theoretical cost of a node: parameters, MACs, memory traffic. Its time is measured on a runtime instead.

MACs are the multiply-accumulates of convolutions, linear layers and products of two activations, as is usual in the
field. Memory traffic is the "memory access cost": activations read and written plus weights read, in float32 bytes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import fx, nn

from slimseg.graph.graph import Graph
from slimseg.graph.shapes import Shape
from slimseg.graph.vocabulary import operator_of

BYTES_PER_VALUE = 4


@dataclass(frozen=True)
class Cost:
    params: int
    macs: int
    memory_bytes: int

    @property
    def arithmetic_intensity(self) -> float:
        """MACs per byte moved."""
        return self.macs / self.memory_bytes if self.memory_bytes else 0.0


def cost(graph: Graph, node: fx.Node) -> Cost:
    """Cost of one node at batch 1. An opaque node counts its memory traffic only."""
    layer = graph.layer(node)
    params = sum(parameter.numel() for parameter in layer.parameters()) if layer else 0
    values = _size(node) + sum(_size(source) for source in node.all_input_nodes)
    written_and_read = 2 * inner_values(graph, node)
    return Cost(params, _macs(graph, node, layer), BYTES_PER_VALUE * (values + written_and_read + params))


def total(graph: Graph) -> Cost:
    """Cost of the whole network; shared parameters are counted once."""
    costs = [cost(graph, node) for node in graph.layers()]
    params = sum(parameter.numel() for parameter in graph.module.parameters())
    return Cost(params, sum(each.macs for each in costs), sum(each.memory_bytes for each in costs))


def inner_values(graph: Graph, node: fx.Node) -> int:
    """How many values a node makes and reads again before its result, such as the scores of attention."""
    operator = operator_of(graph.layer(node))
    return operator.inner(graph.layer(node), _input_shapes(graph, node), graph.shape(node)) if operator else 0


def _input_shapes(graph: Graph, node: fx.Node) -> list[Shape]:
    return [graph.shape(source) for source in node.args if isinstance(source, fx.Node)]


def _size(node: fx.Node) -> int:
    return math.prod(node.meta["shape"]) if "shape" in node.meta else 0


def _macs(graph: Graph, node: fx.Node, layer: nn.Module | None) -> int:
    operator = operator_of(layer)
    if operator is None:
        return 0
    return operator.macs(layer, _input_shapes(graph, node), graph.shape(node))
