"""Slices before reshapes and transposes, where they take channels of a map.

    Given   (N, H, W, 3·C) as (N, H·W, 3, heads, C / heads), its dimensions in another order, then one of the three
    Result  C channels of the map, then as (N, heads, H·W, C / heads)

One layer makes the queries, keys and values of attention; files differ in when they take them apart.
"""

from __future__ import annotations

import math

from torch import fx

from slimseg.graph import ops
from slimseg.graph.graph import Graph, producer
from slimseg.graph.rewriting import insert_before
from slimseg.graph.spellings import views


def before_views(graph: Graph) -> None:
    """Move each slice before the views that it reads, in place, if it takes neighbouring values there, too."""
    for node in list(graph.layers()):
        layer = graph.layer_as(node, ops.Slice)
        row = views.row_to(graph, producer(node)) if layer is not None and layer.step == 1 else []
        # Where several slices read one row, each gets views of its own.
        if layer is not None and row and all(graph.layer_as(each, ops.Slice) is not None for each in row[-1].users):
            _move(graph, node, layer, row)


def _move(graph: Graph, node: fx.Node, layer: ops.Slice, row: list[fx.Node]) -> None:
    found, source = views.followed(graph, row), producer(row[0])
    if found is None:
        return
    parts = [part for part in found.after[layer.dim] if not part.is_batch or len(found.after[layer.dim]) == 1]
    if len(parts) != 1:
        return
    (part,) = parts
    places = [dim for dim, parts in enumerate(found.before) if any(each is part for each in parts)]
    shape = graph.shape(source)
    if part.is_batch or not places or found.before[places[0]][0] is not part:
        return  # it takes values from several places of a dimension
    dim, rest = places[0], shape[places[0]] // part.length
    cut = ops.Slice(dim, layer.start * rest, layer.stop * rest)
    part.length = layer.stop - layer.start
    found.drop_short()
    found.images_first()
    few = tuple(part.length * rest if each == dim else length for each, length in enumerate(shape))
    spelling = views.cheapest_of(found, few, graph.shape(node))
    if spelling is None or math.prod(few) != math.prod(graph.shape(node)):
        return
    value = insert_before(graph, node, cut, (source,), f"{node.name}_part")
    for view in spelling.layers:
        value = insert_before(graph, node, view, (value,), node.name)
    node.replace_all_uses_with(value)
    graph.module.graph.erase_node(node)
    for each in reversed(row):
        if not each.users:
            graph.module.graph.erase_node(each)
