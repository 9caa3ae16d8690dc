"""The theoretical cost of a node: parameters, MACs, memory traffic. Its time is measured on a runtime instead.

MACs are the multiply-accumulates of convolutions and linear layers, as is usual in the field. Memory traffic is the
"memory access cost": activations read and written plus weights read, in float32 bytes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import fx, nn

from slimseg.graph.graph import Graph
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
    return Cost(params, _macs(graph, node, layer), BYTES_PER_VALUE * (values + params))


def total(graph: Graph) -> Cost:
    """Cost of the whole network; shared parameters are counted once."""
    costs = [cost(graph, node) for node in graph.layers()]
    params = sum(parameter.numel() for parameter in graph.module.parameters())
    return Cost(params, sum(each.macs for each in costs), sum(each.memory_bytes for each in costs))


def _size(node: fx.Node) -> int:
    return math.prod(node.meta["shape"]) if "shape" in node.meta else 0


def _macs(graph: Graph, node: fx.Node, layer: nn.Module | None) -> int:
    operator = operator_of(layer)
    if operator is None:
        return 0
    inputs = [graph.shape(source) for source in node.args if isinstance(source, fx.Node)]
    return operator.macs(layer, inputs, graph.shape(node))
