"""The kind of a network's output, and the node of the map of classes that the output is made from."""

from __future__ import annotations

from torch import Tensor, fx, nn

from slimseg.graph import edit, ops
from slimseg.graph.description import OutputKind
from slimseg.graph.graph import Graph, producer
from slimseg.graph.orders import TO_NCHW, TO_NHWC

_KEEPS_MEANING = (ops.Reshape, ops.Transpose, ops.Slice, ops.Cast, ops.Resize, ops.Pad)


def output_kind(graph: Graph) -> OutputKind:
    """Logits, probabilities or mask, derived from the last layer that computes: argmax, softmax, sigmoid or another."""
    layer = graph.layer(last_computed(graph))
    if isinstance(layer, ops.ArgMax):
        return "mask"
    return "probabilities" if isinstance(layer, nn.Softmax | nn.Sigmoid) else "logits"


def last_computed(graph: Graph) -> fx.Node:
    """The node that computes the values of the output; the nodes after it only move, resize or cast them."""
    node = graph.output
    while graph.layer_as(node, _KEEPS_MEANING) is not None:
        node = producer(node)
    return node


def final_argmax(graph: Graph) -> fx.Node | None:
    """The argmax at the end of the network, if only its shape and type change after it; else None."""
    node = graph.output
    while graph.layer_as(node, (ops.Reshape, ops.Cast, ops.Transpose)) is not None:
        node = producer(node)
    return node if graph.layer_as(node, ops.ArgMax) is not None else None


def map_node(graph: Graph) -> fx.Node:
    """The last node that is a map: (1, classes, h, w), or (1, h, w) for a mask; nodes after it only flatten it."""
    node = graph.output
    while len(graph.shape(node)) != 4 and graph.layer_as(node, (ops.Reshape, ops.Cast)) is not None:
        node = producer(node)
    last = graph.layer_as(node, ops.Transpose)
    if node is not graph.output and last is not None and last.dims == TO_NHWC:
        return producer(node)  # files flatten in two steps: a transpose to NHWC, then a reshape
    return node


def giving_map(graph: Graph) -> Graph:
    """The graph itself, or, if it flattens its map, a copy whose output is the map."""
    node = map_node(graph)
    return graph if node is graph.output else edit.ending_at(graph, node.name)


def as_map(graph: Graph, output: Tensor) -> Tensor:
    """The graph's output as a map, (N, classes, h, w), or (N, h, w) for a mask, also if the graph flattens it."""
    if map_node(graph) is graph.output:
        return output
    shape = graph.shape(map_node(graph))
    if len(shape) == 3:
        return output.reshape(-1, *shape[1:])
    channels, height, width = shape[1:]
    return output.reshape(-1, height, width, channels).permute(TO_NCHW)


def map_size(graph: Graph) -> tuple[int, int]:
    """Height and width of the map of classes."""
    shape = graph.shape(map_node(graph))
    return shape[-2], shape[-1]


def class_count(graph: Graph) -> int:
    """Number of classes: 2 for a map of one channel; 0 for a mask, which does not show it."""
    shape = graph.shape(map_node(graph))
    return max(2, shape[1]) if len(shape) == 4 else 0
