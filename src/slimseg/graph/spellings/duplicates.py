"""Layers that compute the same value twice, as code does that writes `x - mean` in two places."""

from __future__ import annotations

from torch import fx

from slimseg.graph import ops
from slimseg.graph.graph import Graph

_WITHOUT_WEIGHTS = (
    *(ops.Add, ops.Subtract, ops.Multiply, ops.Divide, ops.Unary, ops.Reduce),
    *(ops.Slice, ops.Reshape, ops.Transpose),
)


def merge(graph: Graph) -> None:
    """Leave the first of equal layers, in place."""
    known: dict[tuple[object, ...], fx.Node] = {}
    for node in list(graph.layers()):
        layer = graph.layer_as(node, _WITHOUT_WEIGHTS)
        if layer is None:
            continue
        first = known.setdefault((type(layer), layer.extra_repr(), node.args), node)
        if first is not node:
            node.replace_all_uses_with(first)
            graph.module.graph.erase_node(node)
