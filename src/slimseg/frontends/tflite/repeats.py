"""A nearest resize that is spelled as repetition: RESHAPE, TILE, RESHAPE, once for the height and once for the width.

    Given   (1, h, w, c) -> (1, h, 1, w, c) -> tile -> (1, sh, w, 1, c) -> tile -> (1, sh, sw, c)
    Result  nearest resize to (sh, sw)

Whether a chain is one is not guessed from its shapes: the numbers of all values are sent through it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, fx, nn

from slimseg.graph import edit, ops
from slimseg.graph.graph import Graph, only_consumer, producer

_LARGEST = 1 << 24  # values: what float32 counts exactly


def as_resizes(graph: Graph) -> Graph:
    """The same network with such chains replaced by resizes."""
    while (chain := _first(graph)) is not None:
        source, target = chain
        _, _, height, width = graph.shape(target)
        resize = nn.Sequential(ops.Resize((height, width), "nearest", "asymmetric"))
        graph = edit.replace(graph, [source.name], target.name, resize)
    return graph


def _first(graph: Graph) -> tuple[fx.Node, fx.Node] | None:
    """(the map before, the map behind) of the first chain that is a nearest resize."""
    for node in graph.layers():
        if _is_repeat(graph, node):
            source, target = _start(graph, node), _end(graph, node)
            if target is not None and _is_nearest(graph, source, target):
                return source, target
    return None


def _is_repeat(graph: Graph, node: fx.Node) -> bool:
    return graph.layer_as(node, ops.Concat) is not None and len(set(node.args)) == 1


def _moves(graph: Graph, node: fx.Node) -> bool:
    return graph.layer_as(node, ops.Reshape) is not None or _is_repeat(graph, node)


def _start(graph: Graph, node: fx.Node) -> fx.Node:
    node = producer(node)
    while len(graph.shape(node)) != 4 and _moves(graph, node):
        node = producer(node)
    return node


def _end(graph: Graph, node: fx.Node) -> fx.Node | None:
    """The first map behind a repetition that nothing else looks into."""
    while len(graph.shape(node)) != 4 or (
        (reader := only_consumer(node)) is not None and _is_repeat(graph, node) and _moves(graph, reader)
    ):
        reader = only_consumer(node)
        if reader is None or not _moves(graph, reader):
            return None
        node = reader
    return node


def _is_nearest(graph: Graph, source: fx.Node, target: fx.Node) -> bool:
    before, after = graph.shape(source), graph.shape(target)
    if len(before) != 4 or len(after) != 4 or before[1] != after[1] or math.prod(before) > _LARGEST:
        return False
    numbers = torch.arange(math.prod(before), dtype=torch.float32).reshape(before)
    with torch.no_grad():
        wanted: Tensor = ops.Resize((after[2], after[3]), "nearest", "asymmetric")(numbers)
        return torch.equal(edit.extract(graph, source.name, target.name)(numbers), wanted)
