"""Matrix products: where a scale is applied, and what transposes the second operand.

    Given   (s·Q) Kᵀ, also (√s·Q) (√s·K)ᵀ     with reshapes, transposes and slices in between
    Result  s·(Q Kᵀ)                          which `attention_scale` folds into the layer that makes Q

The second operand is transposed by a layer before the product, or by the product itself, whichever makes the views
before it cheaper.
"""

from __future__ import annotations

import math

import torch
from torch import fx, nn

from slimseg.graph import ops
from slimseg.graph.graph import Graph, producer
from slimseg.graph.rewriting import insert_before, is_read_once, number, replace
from slimseg.graph.spellings import views

_MOVES = (ops.Reshape, ops.Transpose, ops.Slice)
_LONGEST = 64  # layers between a product and the layer that makes its operand


def scale_results(graph: Graph) -> None:
    """Scale the results of products instead of their operands, in place."""
    for node in list(graph.layers()):
        if graph.layer_as(node, ops.MatMul) is None or len(set(node.args)) < 2:
            continue
        scales = [found for operand in node.all_input_nodes if (found := _scale(graph, operand)) is not None]
        if scales:
            _scale_result(graph, node, scales)


def _scale(graph: Graph, node: fx.Node) -> fx.Node | None:
    """The layer that scales an operand by a number between the layer of weights that makes it and the product."""
    found: fx.Node | None = None
    for _ in range(_LONGEST):
        affine = graph.layer_as(node, ops.Affine)
        if affine is not None and found is None and affine.shift is None and number(affine.scale) is not None:
            found = node
        elif graph.layer_as(node, (nn.Conv2d, nn.Linear)) is not None:
            return found
        elif graph.layer_as(node, _MOVES) is None:
            return None
        if found in (None, node) and not is_read_once(node):
            return None
        node = producer(node)
    return None


def _scale_result(graph: Graph, node: fx.Node, scales: list[fx.Node]) -> None:
    factors = []
    for each in scales:
        layer = graph.layer_as(each, ops.Affine)
        assert layer is not None
        factors.append(number(layer.scale) or 0.0)
        each.replace_all_uses_with(producer(each))
        graph.module.graph.erase_node(each)
    reader = next(iter(node.users)) if is_read_once(node) else None
    after = graph.layer_as(reader, ops.Affine)
    own = number(after.scale) if after is not None and after.shift is None else None
    if reader is not None and own is not None:
        replace(graph, reader, ops.Affine(torch.tensor(math.prod(factors) * own)), (node,))
        return
    readers = list(node.users)
    scaled = ops.Affine(torch.tensor(math.prod(factors)))
    made = insert_before(graph, node.next, scaled, (node,), f"{node.name}_scaled")
    for each in readers:
        each.replace_input_with(node, made)


def choose_transposes(graph: Graph) -> None:
    """Let every product transpose its second operand where that makes the views before it cheaper, in place."""
    for node in list(graph.layers()):
        layer = graph.layer_as(node, ops.MatMul)
        operand = node.args[1] if layer is not None else None
        if layer is None or not isinstance(operand, fx.Node) or not is_read_once(operand):
            continue
        row = views.row_to(graph, operand)
        rank = len(graph.shape(operand))
        swap = ops.Transpose((*range(rank - 2), rank - 1, rank - 2))
        if not row or node.args[0] is operand:
            continue
        now, other = views.cheapest(graph, row), views.cheapest(graph, row, [swap])
        if now is None or other is None or other.cost >= now.cost:
            continue
        first, _ = node.args
        assert isinstance(first, fx.Node)
        turned = insert_before(graph, node, swap, (operand,), f"{operand.name}_turned")
        replace(graph, node, ops.MatMul(not layer.transposed), (first, turned))
