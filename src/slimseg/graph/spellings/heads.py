"""What the dimensions of attention's matrices hold: windows, heads, tokens, channels of a head.

Each matrix is followed back through reshapes and transposes to the layer that makes it (`views`). What comes from that
layer's channels is a head, or a channel of a head; every other dimension before the matrices is a window.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import fx

from slimseg.graph import ops
from slimseg.graph.graph import Graph, producer
from slimseg.graph.shapes import Shape
from slimseg.graph.spellings import views
from slimseg.graph.spellings.views import Arrangement, View

_HEADS_FIRST = (0, 2, 1, 3)  # its own inverse


@dataclass(frozen=True)
class Matrix:
    """A value whose last two dimensions are (tokens, channels of a head), or the other way round."""

    node: fx.Node
    is_turned: bool


@dataclass(frozen=True)
class Heads:
    """Queries, keys or values, as `layers` make them of `source`: (windows, tokens, heads · size)."""

    source: fx.Node
    layers: tuple[View, ...]
    windows: int
    heads: int
    tokens: int
    size: int

    @property
    def sequence(self) -> Shape:
        return self.windows, self.tokens, self.heads * self.size


def split(graph: Graph, matrix: Matrix, either_order: bool = False) -> Heads | None:
    """Find the heads of a matrix; None if they are no groups of neighbouring channels of a map or sequence.

    Args:
        either_order: whether a sequence may also be (N, channels, tokens).
    """
    row = views.row_to(graph, matrix.node)
    source = producer(row[0]) if row else matrix.node
    before, shape = graph.shape(source), graph.shape(matrix.node)
    found = views.followed(graph, row) if row else Arrangement.of(before)
    if found is None or len(shape) < 3:
        return None
    *leading, tokens, size = (*found.after[:-2], *found.after[:-3:-1]) if matrix.is_turned else found.after
    parts = [part for dim in leading for part in dim]
    channels_first = len(before) == 4 or (
        either_order and len(before) == 3 and any(part in found.before[1] for part in size)
    )
    own = found.before[1 if channels_first else -1]
    heads = [part for part in parts if part in own]
    windows = parts[: len(parts) - len(heads)]
    if [*windows, *heads] != parts or [*heads, *size] != own or any(part in own for part in tokens):
        return None
    lengths = [math.prod(part.length for part in each) for each in (windows, heads, tokens, size)]
    layers = [layer for each in row if isinstance(layer := graph.layer(each), View)]
    spelling = views.cheapest_layers(before, [*layers, *_to_sequence(shape, lengths, matrix.is_turned)])
    return Heads(source, spelling.layers, *lengths) if spelling is not None else None


def as_product(shape: Shape, queries: Heads, values: Heads, is_turned: bool) -> list[View]:
    """The views that arrange attention's sequence as the product that it replaces.

    Args:
        shape: of the product.
        is_turned: whether the product has the tokens in its last dimension.
    """
    windows, heads, tokens, size = queries.windows, queries.heads, queries.tokens, values.size
    turn: list[View] = [swap(len(shape))] if is_turned else []
    straight = ops.Reshape((*shape[:-2], tokens, size), False)
    if heads == 1:
        return [straight, *turn]
    return [ops.Reshape((windows, tokens, heads, size), False), ops.Transpose(_HEADS_FIRST), straight, *turn]


def swap(rank: int) -> ops.Transpose:
    """The transpose of a matrix."""
    return ops.Transpose((*range(rank - 2), rank - 1, rank - 2))


def _to_sequence(shape: Shape, lengths: Sequence[int], is_turned: bool) -> list[View]:
    windows, heads, tokens, size = lengths
    turn: list[View] = [swap(len(shape))] if is_turned else []
    if heads == 1:
        return [*turn, ops.Reshape((windows, tokens, size), False)]
    apart, joined = (windows, heads, tokens, size), (windows, tokens, heads * size)
    return [*turn, ops.Reshape(apart, False), ops.Transpose(_HEADS_FIRST), ops.Reshape(joined, False)]
