"""Folds the scale of attention's scores into the layer that makes the queries: exact, and one operator less.

    Given   softmax(s·(Q Kᵀ)),  Q = W x + b       s a number, mostly 1/√d
    Result  softmax(Q' Kᵀ),     Q' = (s·W) x + s·b

The scores are the largest maps of attention, one number for each pair of tokens; the weights of Q are few. Between the
layer and the product lie only reshapes, transposes and slices. If one layer makes queries, keys and values, only the
channels of the queries are scaled.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, fx, nn

from slimseg.graph import ops
from slimseg.graph.graph import Graph, only_consumer, producer

_VIEWS = (ops.Reshape, ops.Transpose, ops.Slice)


def fold_attention_scales(graph: Graph) -> None:
    """Fold the scales of all scores that allow it, in place; the graph has to be refreshed afterwards."""
    for node in list(graph.layers()):
        attention = graph.layer_as(node, ops.Attention)
        if attention is not None:
            _fold(graph, node, attention)
            continue
        affine = graph.layer_as(node, ops.Affine)
        if affine is None or affine.shift is not None or affine.scale is None or affine.scale.numel() != 1:
            continue
        product = producer(node)
        if graph.layer_as(product, ops.MatMul) is None or only_consumer(product) is not node:
            continue
        if any(_scale(graph, product, operand, float(affine.scale)) for operand in dict.fromkeys(product.args)):
            node.replace_all_uses_with(product)
            graph.module.graph.erase_node(node)


def _fold(graph: Graph, node: fx.Node, layer: ops.Attention) -> None:
    """Fold the scale of an attention layer into its queries or keys, if it has a layer of its own."""
    is_shared = sum(other.target == node.target for other in graph.layers()) > 1
    if layer.scale == 1 or is_shared:
        return
    if any(_scale(graph, node, operand, layer.scale) for operand in dict.fromkeys(node.args[:2])):
        graph.module.add_module(str(node.target), ops.Attention(layer.heads, 1.0, layer.bias, layer.mask).eval())


def _scale(graph: Graph, product: fx.Node, operand: object, factor: float) -> bool:
    """Scale the layer that makes one operand of a product; returns whether that is possible."""
    root = operand
    while isinstance(root, fx.Node) and graph.layer_as(root, _VIEWS) is not None:
        root = producer(root)
    layer = graph.layer_as(root, (nn.Conv2d, nn.Linear))
    if not isinstance(layer, nn.Conv2d | nn.Linear) or not isinstance(root, fx.Node):
        return False
    if product.args.count(operand) > 1 or sum(other.target == root.target for other in graph.layers()) > 1:
        return False
    dim = 1 if isinstance(layer, nn.Conv2d) else len(graph.shape(root)) - 1
    channels: set[int] = set()
    others: set[int] = set()
    for value, reader, found in _leaves(graph, root, _numbered(graph.shape(root), dim)):
        (channels if value is operand and reader is product else others).update(found)
    if not channels or channels & others:
        return False
    _scale_outputs(graph, root, layer, sorted(channels), factor)
    return True


def _numbered(shape: tuple[int, ...], dim: int) -> Tensor:
    """A tensor of a shape that holds, at every position, its index along `dim`."""
    along = torch.arange(shape[dim]).reshape([shape[dim] if each == dim else 1 for each in range(len(shape))])
    return along.expand(shape)


def _leaves(graph: Graph, node: fx.Node, numbers: Tensor) -> Iterator[tuple[fx.Node, fx.Node, set[int]]]:
    """Every (value, reader, channels of the value) behind the views of a layer's result."""
    for reader in node.users:
        view = graph.layer_as(reader, _VIEWS)
        if view is None:
            yield node, reader, set(numbers.flatten().tolist())
        else:
            yield from _leaves(graph, reader, view(numbers))


def _scale_outputs(
    graph: Graph, node: fx.Node, layer: nn.Conv2d | nn.Linear, channels: list[int], factor: float
) -> None:
    result = copy.deepcopy(layer)
    for name in ("weight", "bias"):
        value = getattr(result, name)
        if value is not None:
            scaled = value.detach().clone()
            scaled[channels] *= factor
            setattr(result, name, nn.Parameter(scaled))
    graph.module.add_module(str(node.target), result.eval())
