"""Steps that all rewrites take: new layers, new nodes, and questions about the nodes beside one."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, fx, nn

from slimseg.graph import ops
from slimseg.graph.graph import Graph
from slimseg.graph.names import unused
from slimseg.graph.propagation import shape_of


def is_read_once(node: fx.Node) -> bool:
    return len(node.users) == 1


def replace(graph: Graph, node: fx.Node, layer: nn.Module, sources: Sequence[fx.Node]) -> None:
    """Let a node compute `layer` of `sources`; its name and its readers stay."""
    node.target, node.args = _added(graph, layer, node.name, node), tuple(sources)


def insert_before(graph: Graph, node: fx.Node, layer: nn.Module, sources: Sequence[fx.Node], name: str) -> fx.Node:
    """A new node that computes `layer` of `sources`."""
    target = _added(graph, layer, name)
    with graph.module.graph.inserting_before(node):
        made = graph.module.graph.call_module(target, tuple(sources))
    made.meta["shape"] = shape_of(layer, [graph.shape(source) for source in sources])
    return made


def _added(graph: Graph, layer: nn.Module, wanted: str, node: fx.Node | None = None) -> str:
    """Make `layer` part of the network; returns its name, which is that of the node if no other node calls it so."""
    is_own = node is not None and not any(
        other.op == "call_module" and other.target == wanted and other is not node for other in graph.module.graph.nodes
    )
    name = wanted if is_own else unused(wanted, graph.module._modules)
    graph.module.add_module(name, layer.eval())
    return name


def number(value: Tensor | None) -> float | None:
    """A constant of one fixed number; None for any other."""
    return float(value) if value is not None and value.numel() == 1 and not isinstance(value, nn.Parameter) else None


def shift_of(graph: Graph, node: fx.Node) -> float | None:
    """The c of a layer x + c."""
    layer = graph.layer_as(node, ops.Affine)
    shift = number(layer.shift) if layer is not None and layer.scale is None else None
    return shift if shift is not None and math.isfinite(shift) else None


def function_of(graph: Graph, node: object, function: str) -> fx.Node | None:
    """The x of a layer function(x)."""
    layer = graph.layer_as(node, ops.Unary)
    return node.all_input_nodes[0] if layer and layer.function == function and isinstance(node, fx.Node) else None
