"""Layers that change nothing: resizes to the same size, products with one, sums with zero; x·x is a square.

Most exporters leave such layers out, and people write them for other input sizes or settings.
"""

from __future__ import annotations

from torch import fx, nn

from slimseg.graph import ops
from slimseg.graph.graph import Graph
from slimseg.graph.rewriting import number, replace


def merge(graph: Graph) -> None:
    """Leave out layers that change nothing, and write x·x as a square, in place."""
    for node in list(graph.layers()):
        layer, sources = graph.layer(node), node.all_input_nodes
        if layer is not None and len(node.args) == 1 and _changes_nothing(graph, node, layer):
            node.replace_all_uses_with(sources[0])
            graph.module.graph.erase_node(node)
        elif isinstance(layer, ops.Multiply) and len(sources) == 1:
            replace(graph, node, ops.Unary("square"), sources)


def _changes_nothing(graph: Graph, node: fx.Node, layer: nn.Module) -> bool:
    if isinstance(layer, ops.Affine):
        scale, shift = number(layer.scale), number(layer.shift)
        return (layer.scale is None or scale == 1) and (layer.shift is None or shift == 0)
    if isinstance(layer, ops.Resize):
        return graph.shape(node) == graph.shape(node.all_input_nodes[0])
    return False
