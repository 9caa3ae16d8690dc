"""What comes out at the end of a network, and where in the graph the map of classes is that the end is made from."""

from __future__ import annotations

from torch import fx, nn

from slimseg.graph import ops
from slimseg.graph.description import OutputKind
from slimseg.graph.graph import Graph, producer

_KEEPS_MEANING = (ops.Reshape, ops.Transpose, ops.Slice, ops.Cast, ops.Resize, ops.Pad)


def output_kind(graph: Graph) -> OutputKind:
    """Logits, probabilities or mask, read off the last layers: what softmax, sigmoid or argmax give is what it says."""
    node = graph.output
    while (layer := graph.layer(node)) is not None and isinstance(layer, _KEEPS_MEANING):
        node = producer(node)
    if isinstance(layer, ops.ArgMax):
        return "mask"
    return "probabilities" if isinstance(layer, nn.Softmax | nn.Sigmoid) else "logits"


def map_node(graph: Graph) -> fx.Node:
    """The last node that is still a map: (1, classes, h, w), or (1, h, w) for a mask; what follows only flattens it."""
    node = graph.output
    while len(graph.shape(node)) != 4 and graph.layer_as(node, (ops.Reshape, ops.Cast)) is not None:
        node = producer(node)
    return node
