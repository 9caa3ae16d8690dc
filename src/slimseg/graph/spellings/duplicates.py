"""Layers that compute the same value twice, as code does that writes `x - mean` in two places."""

from __future__ import annotations

from torch import fx, nn

from slimseg.graph.graph import Graph
from slimseg.graph.rewriting import number


def merge(graph: Graph) -> None:
    """Leave the first of equal layers, in place."""
    known: dict[tuple[object, ...], fx.Node] = {}
    for node in list(graph.layers()):
        settings = _settings(graph.layer(node))
        if settings is None:
            continue
        first = known.setdefault((settings, node.args), node)
        if first is not node:
            node.replace_all_uses_with(first)
            graph.module.graph.erase_node(node)


def _settings(layer: nn.Module | None) -> tuple[object, ...] | None:
    """All that determines what a layer computes; None if it holds more than single fixed numbers."""
    if layer is None or any(True for _ in layer.children()):
        return None
    numbers = {name: number(value) for name, value in (*layer.named_parameters(), *layer.named_buffers())}
    if None in numbers.values():
        return None
    plain = {name: value for name, value in vars(layer).items() if name[0] != "_" and name != "training"}
    return (type(layer), *map(repr, sorted((numbers | plain).items())))
