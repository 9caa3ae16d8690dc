"""A nearest resize written as repetition: RESHAPE, TILE, RESHAPE, once for the height and once for the width.

    Given   (1, h, w, c) -> (1, h, 1, w, c) -> tile -> (1, sh, w, 1, c) -> tile -> (1, sh, sw, c)
    Result  nearest resize to (sh, sw)

A chain is not recognised by its shapes alone: numbered values are sent through it and compared with the resize's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, fx

from slimseg.graph import edit, ops
from slimseg.graph.graph import Graph, only_consumer, producer

_LARGEST = 1 << 24  # most values of a map, since float32 counts exactly up to this number
_MOST_VALUES = 1 << 25  # most values of all chains that are tested; further chains stay as they are
_MOST_REPETITIONS = 64


def as_resizes(graph: Graph) -> Graph:
    """The same graph, with resizes in place of such chains."""
    chains = list(_chains(graph))
    for source, target in chains:
        _, _, height, width = graph.shape(target)
        graph.module.add_module(str(target.target), ops.Resize((height, width), "nearest", "asymmetric"))
        target.args = (source,)
    if chains:
        graph.refresh()
    return graph


def _chains(graph: Graph) -> Iterator[tuple[fx.Node, fx.Node]]:
    """(map before, map after) of every chain that is a nearest resize, in execution order."""
    seen: set[tuple[fx.Node, fx.Node]] = set()
    values_left = _MOST_VALUES
    for node in [node for node in graph.layers() if _is_repeat(graph, node)][:_MOST_REPETITIONS]:
        source, target = _start(graph, node), _end(graph, node)
        if target is None or (source, target) in seen:
            continue
        seen.add((source, target))
        values_left -= math.prod(graph.shape(target))
        if values_left < 0:
            return
        if _is_nearest(graph, source, target):
            yield source, target


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
    """The first map after a repetition whose intermediate values nothing else reads; None if there is none."""
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
