"""Functions of single numbers (activations, a scale) before reshapes and transposes: there, convolutions fuse them."""

from __future__ import annotations

from torch import fx

from slimseg.graph import ops
from slimseg.graph.graph import Graph, producer
from slimseg.graph.rewriting import is_read_once, number

_MOVES = (ops.Reshape, ops.Transpose)
_LONGEST = 64  # reshapes and transposes before one function


def before_views(graph: Graph) -> None:
    """Move each function before the views that it reads, in place."""
    for node in list(graph.layers()):
        if not _is_function(graph, node):
            continue
        first = node
        for _ in range(_LONGEST):
            before = producer(first)
            if graph.layer_as(before, _MOVES) is None or not is_read_once(before):
                break
            first = before
        if first is not node:
            _move(graph, node, first)


def _is_function(graph: Graph, node: fx.Node) -> bool:
    affine = graph.layer_as(node, ops.Affine)
    if affine is not None:
        return all(value is None or number(value) is not None for value in (affine.scale, affine.shift))
    return graph.layer_as(node, (*ops.PLAIN_ACTIVATIONS, ops.Unary)) is not None


def _move(graph: Graph, node: fx.Node, first: fx.Node) -> None:
    """Let `node` read what `first`, the first of its views, reads, and the view what `node` makes."""
    source, last = producer(first), producer(node)
    node.replace_all_uses_with(last)
    first.args, node.args = (node,), (source,)
    first.prepend(node)
    node.meta["shape"] = graph.shape(source)
