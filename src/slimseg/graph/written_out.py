"""Attention as the layers that every runtime has: matrix products, a softmax, reshapes and transposes.

    (N, C, H, W)  ->  (N, heads, H·W, C / heads)        queries, keys and values; (N, H·W, C) if there is one head
    softmax(scale · Q Kᵀ + bias) V                      -> the result, in the arrangement of the queries

Reshapes and transposes before and behind the attention become one row with those that are added here (`views`), and the
keys are transposed by their row or by the product, whichever is cheaper. Writers of files use this; every node that is
added says in `meta` of which layer it is a part (`layer_of`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, fx, nn

from slimseg.graph import ops
from slimseg.graph.graph import Graph, only_consumer, producer
from slimseg.graph.rewriting import insert_before
from slimseg.graph.shapes import Shape
from slimseg.graph.spellings import views
from slimseg.graph.spellings.heads import swap
from slimseg.graph.spellings.views import View
from slimseg.graph.vocabulary.attention import as_sequence

WRITTEN_OUT = (ops.Attention,)  # classes that are written as several layers
_HEADS_FIRST = (0, 2, 1, 3)  # its own inverse
_PART_OF = "part_of"


def written_out(graph: Graph) -> Graph:
    """A copy of the network in which attention is several layers; `graph` itself if it has none."""
    if not any(isinstance(graph.layer(node), WRITTEN_OUT) for node in graph.layers()):
        return graph
    result = graph.copy()
    for node in list(result.layers()):
        layer = result.layer_as(node, ops.Attention)
        if layer is not None:
            _Attention(result, node, layer).write_out()
    result.refresh()
    return result


def layer_of(node: fx.Node) -> str:
    """The layer that a node of `written_out` computes, wholly or in part."""
    return str(node.meta.get(_PART_OF, node.name))


class _Attention:
    """One attention, and the nodes that take its place."""

    def __init__(self, graph: Graph, node: fx.Node, layer: ops.Attention) -> None:
        self.graph, self.node, self.layer = graph, node, layer
        self.name = node.name

    def write_out(self) -> None:
        queries, keys, values = self.node.args
        assert isinstance(queries, fx.Node)
        assert isinstance(keys, fx.Node)
        assert isinstance(values, fx.Node)
        q, _ = self._heads(queries, "queries")
        k, is_turned = self._heads(keys, "keys", may_turn=True)
        scores = self._add(ops.MatMul(transposed=not is_turned), (q, k), "scores")
        for part, constants in self._constants():
            scores = self._add(constants, (scores,), part)
        weights = self._add(nn.Softmax(len(self.graph.shape(scores)) - 1), (scores,), "softmax")
        v, _ = self._heads(values, "values")
        self._finish(self._add(ops.MatMul(), (weights, v), "mixed"))

    def _heads(self, source: fx.Node, part: str, may_turn: bool = False) -> tuple[fx.Node, bool]:
        """The matrices of all heads, and whether they are transposed, which is only done if it is cheaper."""
        row = views.row_to(self.graph, source)
        start = producer(row[0]) if row else source
        own = _to_heads(self.graph.shape(source), self.layer.heads)
        turn = swap(3 if self.layer.heads == 1 else 4)
        layers, is_turned = self._cheapest(start, [*_layers(self.graph, row), *own]), False
        if may_turn:
            turned = self._cheapest(start, [*_layers(self.graph, row), *own, turn])
            is_turned = turned.cost < layers.cost
            layers = turned if is_turned else layers
        value = start
        for layer in layers.layers:
            value = self._add(layer, (value,), part)
        return value, is_turned

    def _cheapest(self, start: fx.Node, layers: Sequence[View]) -> views.Spelling:
        found = views.cheapest_layers(self.graph.shape(start), layers)
        return found if found is not None else views.Spelling(tuple(layers), float("inf"))

    def _constants(self) -> list[tuple[str, ops.Affine]]:
        """The layers that scale the scores and add constants to them."""
        layer, found = self.layer, []
        if layer.scale != 1 or layer.bias is not None:
            scale = torch.tensor(layer.scale) if layer.scale != 1 else None
            found.append(("scaled", ops.Affine(scale, layer.bias)))
        if layer.mask is not None:
            mask: Tensor = layer.mask[:, 0] if layer.heads == 1 else layer.mask
            found.append(("masked", ops.Affine(shift=mask)))
        return found

    def _finish(self, mixed: fx.Node) -> None:
        """Arrange the result as the attention's, together with the views that read it."""
        last, row = self.node, []
        while (reader := only_consumer(last)) is not None and views.is_view(self.graph, reader):
            row.append(reader)
            last = reader
        back = _from_heads(self.graph.shape(self.node), self.layer.heads)
        value = mixed
        for layer in self._cheapest(mixed, [*back, *_layers(self.graph, row)]).layers:
            value = self._add(layer, (value,), "result")
        last.replace_all_uses_with(value)
        name = last.name
        for node in reversed([self.node, *row]):
            self.graph.module.graph.erase_node(node)
        value.name = name

    def _add(self, layer: nn.Module, sources: Sequence[fx.Node], part: str) -> fx.Node:
        made = insert_before(self.graph, self.node, layer, sources, f"{self.name}_{part}")
        made.meta[_PART_OF] = self.name
        return made


def _layers(graph: Graph, row: Sequence[fx.Node]) -> list[View]:
    return [layer for each in row if isinstance(layer := graph.layer(each), View)]


def _to_heads(shape: Shape, heads: int) -> list[View]:
    """From a map or sequence of `shape` to (N, heads, tokens, channels of a head), without heads if there is one."""
    images, tokens, width = as_sequence(shape)
    flat: list[View] = [ops.Reshape((images, tokens, width), channels_last=True)] if len(shape) == 4 else []
    if heads == 1:
        return flat
    return [*flat, ops.Reshape((images, tokens, heads, width // heads), False), ops.Transpose(_HEADS_FIRST)]


def _from_heads(shape: Shape, heads: int) -> list[View]:
    """The way back to a map or sequence of `shape`."""
    images, tokens, width = as_sequence(shape)
    joined: list[View] = [ops.Transpose(_HEADS_FIRST), ops.Reshape((images, tokens, width), False)] if heads > 1 else []
    return [*joined, ops.Reshape(shape, channels_last=True)] if len(shape) == 4 else joined
