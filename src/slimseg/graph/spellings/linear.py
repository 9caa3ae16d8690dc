"""A linear layer in front of a map, as behind attention, is a 1x1 convolution on that map.

Given   linear layer on (N, tokens, C),  then reshapes and transposes to (N, C', H, W)
Result  the reshapes and transposes to (N, C, H, W),  then a 1x1 convolution
"""

from __future__ import annotations

from torch import fx, nn

from slimseg.graph.graph import Graph, producer
from slimseg.graph.maps import pointwise
from slimseg.graph.rewriting import insert_before, is_read_once, replace
from slimseg.graph.shapes import Shape
from slimseg.graph.spellings import views


def on_maps(graph: Graph) -> None:
    """In place."""
    for node in list(graph.layers()):
        row = views.row_to(graph, node) if not any(views.is_view(graph, reader) for reader in node.users) else []
        if not row or len(graph.shape(node)) != 4:
            continue
        source = producer(row[0])
        layer = graph.layer_as(source, nn.Linear)
        is_shared = sum(other.target == source.target for other in graph.layers()) > 1 if layer is not None else True
        if layer is None or is_shared or not is_read_once(source):
            continue
        spelling = _before(graph, layer, source, row)
        if spelling is not None:
            _rewrite(graph, layer, source, row, spelling)


def _before(graph: Graph, layer: nn.Linear, source: fx.Node, row: list[fx.Node]) -> views.Spelling | None:
    """Views of the layer's input that arrange it as the map; None if the features are not the map's channels."""
    found = views.followed(graph, row)
    features, wanted = layer.in_features, graph.shape(row[-1])
    if found is None or features == 1 or layer.out_features == 1:
        return None
    if len(found.before[-1]) != 1 or len(found.after[1]) != 1 or found.before[-1][0] is not found.after[1][0]:
        return None
    found.before[-1][0].length = features
    shape: Shape = (wanted[0], features, *wanted[2:])
    return views.cheapest_of(found, graph.shape(producer(source)), shape)


def _rewrite(graph: Graph, layer: nn.Linear, source: fx.Node, row: list[fx.Node], spelling: views.Spelling) -> None:
    last, value, name = row[-1], producer(source), source.name
    for view in spelling.layers:
        value = insert_before(graph, last, view, (value,), last.name)
    replace(graph, last, pointwise(layer), (value,))
    for node in (*row[-2::-1], source):
        graph.module.graph.erase_node(node)
    last.name = name
