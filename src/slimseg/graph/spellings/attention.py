"""Attention that is written out as two matrix products and a softmax.

    Q, K, V   reshaped and transposed to (N, heads, tokens, channels of a head)
    scores    Q Kᵀ, then scaled, with constants added
    result    softmax(scores) V, reshaped and transposed to a map or a sequence

Files differ in the dimensions that hold windows and heads, in which matrix they transpose, and in whether the softmax
runs over rows or columns; `heads` finds out what each dimension holds. Attention stays written out where its heads are
no groups of neighbouring channels of the layers before it, as where it compares channels instead of tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor, fx, nn

from slimseg.graph import ops
from slimseg.graph.graph import Graph, producer
from slimseg.graph.numbers import as_written
from slimseg.graph.rewriting import insert_before, is_read_once, number, replace
from slimseg.graph.shapes import Shape
from slimseg.graph.spellings import functions, views
from slimseg.graph.spellings.heads import Heads, Matrix, as_product, split, swap

_LONGEST = 64  # layers between a product and the softmax


@dataclass(frozen=True)
class Scores:
    """What softmax reads: scale · queries · keysᵀ + shifts."""

    queries: Matrix
    keys: Matrix
    scale: float
    shifts: tuple[Tensor, ...]  # (..., queries, keys), with the dimensions before as in the product


def merge(graph: Graph) -> None:
    """Replace each attention that is written out by its layer, in place."""
    made = [node for node in list(graph.layers()) if _merge(graph, node)]
    if made:
        functions.before_views(graph)
        views.simplify(graph, made)


def _merge(graph: Graph, node: fx.Node) -> bool:
    for weights, values, is_turned in _readings(graph, node):
        scores = _scores(graph, weights)
        if scores is not None:
            return _replace(graph, node, scores, values, is_turned)
    return False


def _readings(graph: Graph, node: fx.Node) -> Iterator[tuple[Matrix, Matrix, bool]]:
    """The two ways to read a product, as W V and as (W V)ᵀ = Vᵀ Wᵀ: W, V, and whether it is the second."""
    layer = graph.layer_as(node, ops.MatMul)
    if layer is not None and len(node.all_input_nodes) == 2:
        first, second = node.all_input_nodes
        yield Matrix(first, False), Matrix(second, layer.transposed), False
        yield Matrix(second, not layer.transposed), Matrix(first, True), True


def _scores(graph: Graph, weights: Matrix) -> Scores | None:
    """The scores whose softmax over the keys is `weights`; None if it is no such softmax."""
    node, is_turned = weights.node, weights.is_turned
    softmax: fx.Node | None = None
    constants: list[tuple[fx.Node, bool]] = []
    for _ in range(_LONGEST):
        layer, rank = graph.layer(node), len(graph.shape(node))
        if not is_read_once(node):
            return None
        if isinstance(layer, ops.MatMul):
            break
        if isinstance(layer, nn.Softmax) and softmax is None:
            if layer.dim is None or layer.dim % rank != rank - 1 - is_turned:
                return None
            softmax = node
        elif isinstance(layer, ops.Affine) and softmax is not None:
            constants.insert(0, (node, is_turned))
        elif isinstance(layer, ops.Transpose) and layer.dims == swap(rank).dims:
            is_turned = not is_turned
        elif not _regroups(graph, node):
            return None
        node = producer(node)
    product = graph.layer_as(node, ops.MatMul)
    if product is None or softmax is None or len(node.all_input_nodes) != 2:
        return None
    rows, columns = node.all_input_nodes
    pair = Matrix(rows, False), Matrix(columns, not product.transposed)
    found = _constants(graph, graph.shape(node)[:-2], constants)
    return Scores(*(pair[::-1] if is_turned else pair), *found) if found is not None else None


def _regroups(graph: Graph, node: fx.Node) -> bool:
    """Whether a reshape only splits or joins dimensions before the last two."""
    layer = graph.layer_as(node, ops.Reshape)
    if layer is None:
        return False
    before, after = graph.shape(producer(node)), graph.shape(node)
    return before[-2:] == after[-2:] and not (layer.channels_last and 4 in (len(before), len(after)))


def _constants(
    graph: Graph, leading: Shape, nodes: Sequence[tuple[fx.Node, bool]]
) -> tuple[float, tuple[Tensor, ...]] | None:
    """The scale and the shifts of affine layers behind a product; None if a scale is no single number.

    Args:
        leading: the dimensions of the product before the last two.
        nodes: the layers, and whether their last two dimensions are (keys, queries).
    """
    scale = 1.0
    shifts: list[Tensor] = []
    for node, is_turned in nodes:
        layer = graph.layer_as(node, ops.Affine)
        assert layer is not None
        factor = number(layer.scale) if layer.scale is not None else 1.0
        if factor is None or graph.shape(node) != graph.shape(producer(node)):
            return None
        scale, shifts = scale * factor, [shift * factor for shift in shifts]
        if layer.shift is not None and layer.shift.numel() > 1:  # softmax ignores a number that is added to all scores
            full = layer.shift.expand(graph.shape(node))
            turned = full.mT if is_turned else full
            shifts.append(turned.reshape(*leading, *turned.shape[-2:]))
    return scale, tuple(shifts)


def _replace(graph: Graph, node: fx.Node, scores: Scores, values: Matrix, is_turned: bool) -> bool:
    """Let a product compute the whole attention; returns whether that is possible."""
    queries = split(graph, scores.queries)
    keys, mixed = (split(graph, each, either_order=True) for each in (scores.keys, values))
    if queries is None or keys is None or mixed is None:
        return False
    if len({(each.windows, each.heads) for each in (queries, keys, mixed)}) > 1:
        return False
    constants = _bias_and_mask(scores.shifts, queries)
    back = as_product(graph.shape(node), queries, mixed, is_turned)
    inputs = [_sequence(graph, node, each) for each in (queries, keys, mixed)]
    readers, value = list(node.users), node
    replace(graph, node, ops.Attention(queries.heads, as_written(scores.scale), *constants), inputs)
    node.meta["shape"] = (*queries.sequence[:2], mixed.sequence[2])
    for view in back:
        value = insert_before(graph, value.next, view, (value,), f"{node.name}_view")
    for reader in readers:
        reader.replace_input_with(node, value)
    return True


def _sequence(graph: Graph, node: fx.Node, heads: Heads) -> fx.Node:
    """The queries, keys or values as a sequence (N, tokens, channels)."""
    value = heads.source
    for view in heads.layers:
        value = insert_before(graph, node, view, (value,), f"{heads.source.name}_tokens")
    return value


def _bias_and_mask(shifts: Sequence[Tensor], heads: Heads) -> tuple[Tensor | None, Tensor | None]:
    """The sum of all shifts that are the same for all windows, and of the others."""
    bias: Tensor | None = None
    mask: Tensor | None = None
    for shift in shifts:
        each = shift.detach().reshape(heads.windows, heads.heads, *shift.shape[-2:])
        each = each[:, :1] if bool((each == each[:, :1]).all()) else each
        if bool((each == each[:1]).all()):
            bias = each[0].clone() if bias is None else bias + each[0]
        else:
            mask = each.clone() if mask is None else mask + each
    is_trained = any(shift.requires_grad for shift in shifts)
    return nn.Parameter(bias) if bias is not None and is_trained else bias, mask
