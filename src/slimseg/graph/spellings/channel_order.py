"""Channels that change their order are made in the new order by the convolution before them.

    Given   convolution,  activation,  reshape, transpose and reshape that reorder the channels
    Result  convolution with its output channels in the new order,  activation

PyTorch's pixel shuffle keeps the b·b values of one channel together, DepthToSpace the channels of one place: so the
channels are reordered between the convolution and DepthToSpace.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, fx, nn

from slimseg.graph import ops
from slimseg.graph.graph import Graph, producer
from slimseg.graph.rewriting import is_read_once, number
from slimseg.graph.spellings import views

_LONGEST = 8  # layers between the convolution and the channels' new order


def fold(graph: Graph) -> None:
    """In place."""
    for node in list(graph.layers()):
        row = views.row_to(graph, node) if not any(views.is_view(graph, reader) for reader in node.users) else []
        order = _order(graph, row) if len(row) > 1 else None
        made = _convolution(graph, producer(row[0])) if order is not None else None
        if order is not None and made is not None:
            _reorder(graph, made, order)
            node.replace_all_uses_with(producer(row[0]))
            for each in reversed(row):
                graph.module.graph.erase_node(each)


def _order(graph: Graph, row: list[fx.Node]) -> Tensor | None:
    """The channel that each place gets; None if the views move anything but channels."""
    shape, found = graph.shape(producer(row[0])), views.followed(graph, row)
    if found is None or graph.shape(row[-1]) != shape or len(shape) != 4 or views.is_identity(found):
        return None
    moved = [dim for dim in (0, 2, 3) if list(map(id, found.before[dim])) != list(map(id, found.after[dim]))]
    if moved or {id(part) for part in found.before[1]} != {id(part) for part in found.after[1]}:
        return None
    places = [next(i for i, part in enumerate(found.before[1]) if part is wanted) for wanted in found.after[1]]
    return torch.arange(shape[1]).reshape([part.length for part in found.before[1]]).permute(places).reshape(-1)


def _convolution(graph: Graph, node: fx.Node) -> fx.Node | None:
    """The convolution that makes the channels, behind functions of single numbers; None if others need their order."""
    for _ in range(_LONGEST):
        if not is_read_once(node):
            return None
        layer = graph.layer(node)
        if isinstance(layer, nn.Conv2d):
            is_shared = sum(other.target == node.target for other in graph.layers()) > 1
            return node if layer.groups == 1 and not is_shared else None
        is_scalar = isinstance(layer, ops.Affine) and all(
            value is None or number(value) is not None for value in (layer.scale, layer.shift)
        )
        if not is_scalar and not isinstance(layer, (*ops.PLAIN_ACTIVATIONS, ops.Unary)):
            return None
        node = producer(node)
    return None


def _reorder(graph: Graph, node: fx.Node, order: Tensor) -> None:
    layer = graph.layer_as(node, nn.Conv2d)
    assert layer is not None
    result = copy.copy(layer)
    result._parameters = {
        name: None if value is None else nn.Parameter(value.detach()[order], value.requires_grad)
        for name, value in layer._parameters.items()
    }
    graph.module.add_module(str(node.target), result)
