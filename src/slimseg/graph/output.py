"""What comes out at the end of a network, and where in the graph the map of classes is that the end is made from."""

from __future__ import annotations

from torch import Tensor, fx, nn

from slimseg.graph import edit, ops
from slimseg.graph.description import OutputKind
from slimseg.graph.graph import Graph, producer
from slimseg.graph.orders import TO_NCHW, TO_NHWC

_KEEPS_MEANING = (ops.Reshape, ops.Transpose, ops.Slice, ops.Cast, ops.Resize, ops.Pad)


def output_kind(graph: Graph) -> OutputKind:
    """Logits, probabilities or mask, read off the last layers: what softmax, sigmoid or argmax give is what it says."""
    layer = graph.layer(last_computed(graph))
    if isinstance(layer, ops.ArgMax):
        return "mask"
    return "probabilities" if isinstance(layer, nn.Softmax | nn.Sigmoid) else "logits"


def last_computed(graph: Graph) -> fx.Node:
    """The node that makes the values of the result; what follows only moves or resizes them."""
    node = graph.output
    while graph.layer_as(node, _KEEPS_MEANING) is not None:
        node = producer(node)
    return node


def final_argmax(graph: Graph) -> fx.Node | None:
    """The argmax at the end of the network, where only its shape and type change behind it."""
    node = graph.output
    while graph.layer_as(node, (ops.Reshape, ops.Cast, ops.Transpose)) is not None:
        node = producer(node)
    return node if graph.layer_as(node, ops.ArgMax) is not None else None


def map_node(graph: Graph) -> fx.Node:
    """The last node that is still a map: (1, classes, h, w), or (1, h, w) for a mask; what follows only flattens it."""
    node = graph.output
    while len(graph.shape(node)) != 4 and graph.layer_as(node, (ops.Reshape, ops.Cast)) is not None:
        node = producer(node)
    last = graph.layer_as(node, ops.Transpose)
    if node is not graph.output and last is not None and last.dims == TO_NHWC:
        return producer(node)  # flattened as a file flattens it, in two steps
    return node


def giving_map(graph: Graph) -> Graph:
    """The graph itself, or a copy that gives its map as it is where the graph flattens it."""
    node = map_node(graph)
    return graph if node is graph.output else edit.ending_at(graph, node.name)


def as_map(graph: Graph, output: Tensor) -> Tensor:
    """What the graph gave as a map again: (N, classes, h, w), or (N, h, w) for a mask, where it gives it flattened."""
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
    """Classes that a map tells apart; one channel tells two. A mask does not say how many: 0."""
    shape = graph.shape(map_node(graph))
    return max(2, shape[1]) if len(shape) == 4 else 0
