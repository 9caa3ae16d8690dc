"""A layer of weights and the addition after it, as exporters write a bias, are one layer.

    Given   W∗x,  then y + b     b one number for each output channel or feature
    Result  W∗x + b

And likewise the scale and the shift after a normalisation:

    Given   s·n,  then y + t
    Result  s·n + t
"""

from __future__ import annotations

import copy
from collections import defaultdict

import torch
from torch import Tensor, fx, nn

from slimseg.graph import ops
from slimseg.graph.graph import Graph, producer
from slimseg.graph.rewriting import is_read_once, replace

_WEIGHTED = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


def merge(graph: Graph) -> None:
    """In place."""
    calls: dict[str, list[fx.Node]] = defaultdict(list)
    for node in list(graph.layers()):
        if graph.layer_as(node, _WEIGHTED) is not None:
            calls[str(node.target)].append(node)
        _merge_shift(graph, node)
    for nodes in calls.values():
        _merge_bias(graph, nodes)


def _merge_bias(graph: Graph, nodes: list[fx.Node]) -> None:
    """Merge the additions after all calls of one layer, if they add the same."""
    layer = graph.layer_as(nodes[0], _WEIGHTED)
    readers = [next(iter(node.users)) for node in nodes if is_read_once(node)]
    biases = [_bias(graph, node, reader) for node, reader in zip(nodes, readers, strict=False)]
    if layer is None or layer.bias is not None or len(readers) < len(nodes) or biases[0] is None:
        return
    if not all(bias is not None and torch.equal(bias, biases[0]) for bias in biases):
        return
    merged = copy.copy(layer)
    merged._parameters = dict(layer._parameters)
    merged.bias = biases[0] if isinstance(biases[0], nn.Parameter) else nn.Parameter(biases[0], requires_grad=False)
    graph.module.add_module(str(nodes[0].target), merged)
    for node, reader in zip(nodes, readers, strict=True):
        reader.replace_all_uses_with(node)
        graph.module.graph.erase_node(reader)


def _bias(graph: Graph, node: fx.Node, reader: fx.Node) -> Tensor | None:
    """What a layer adds to each output channel of the layer before it; None if it does anything else."""
    affine, shape = graph.layer_as(reader, ops.Affine), graph.shape(node)
    if affine is None or affine.scale is not None or affine.shift is None or graph.shape(reader) != shape:
        return None
    dim = len(shape) - 1 if graph.layer_as(node, nn.Linear) is not None else 1
    full = (1,) * (len(shape) - affine.shift.ndim) + tuple(affine.shift.shape)
    if full != tuple(length if place == dim else 1 for place, length in enumerate(shape)):
        return None
    values = affine.shift.detach().reshape(-1)
    return nn.Parameter(values, affine.shift.requires_grad) if isinstance(affine.shift, nn.Parameter) else values


def _merge_shift(graph: Graph, node: fx.Node) -> None:
    shift = graph.layer_as(node, ops.Affine)
    if shift is None or shift.scale is not None or not is_read_once(before := producer(node)):
        return
    scale = graph.layer_as(before, ops.Affine)
    if scale is None or scale.shift is not None or graph.layer_as(producer(before), ops.Normalise) is None:
        return
    source = producer(before)
    replace(graph, node, ops.Affine(scale.scale, shift.shift), (source,))
    graph.module.graph.erase_node(before)
