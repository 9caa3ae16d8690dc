"""A scale and shift of slimseg's own files, which ONNX has as a product and a sum, becomes one layer again."""

from __future__ import annotations

from slimseg.graph import ops
from slimseg.graph.graph import Graph
from slimseg.graph.rewriting import is_read_once, replace


def join(graph: Graph) -> None:
    """In place: `x_scaled` and the sum `x` behind it become `x`."""
    for node in list(graph.layers()):
        shift = graph.layer_as(node, ops.Affine)
        if shift is None or shift.scale is not None:
            continue
        source = node.all_input_nodes[0]
        scale = graph.layer_as(source, ops.Affine)
        if scale is not None and scale.shift is None and source.name == f"{node.name}_scaled" and is_read_once(source):
            replace(graph, node, ops.Affine(scale.scale, shift.shift), source.all_input_nodes)
            graph.module.graph.erase_node(source)
