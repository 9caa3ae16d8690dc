"""Channelwise layers: elementwise, with at most one constant per channel, so that they can change places with others.

They are batch norms, activations, scales and shifts. Such layers after a depth to space can move before it, where their
constants are repeated for its larger number of channels; see transposed.py and depth_to_space.py.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, fx, nn

from slimseg.graph import edit, ops
from slimseg.graph.graph import Graph, only_consumer

VALUEWISE: tuple[type[nn.Module], ...] = (*ops.PLAIN_ACTIVATIONS, ops.Unary)


def is_channelwise(graph: Graph, node: fx.Node) -> bool:
    """Whether the layer is elementwise on (N, C, H, W), with at most one constant per channel."""
    layer, shape = graph.layer(node), graph.shape(node)
    if len(shape) != 4 or layer is None:
        return False
    if isinstance(layer, ops.Affine):
        constants = [value for value in (layer.scale, layer.shift) if value is not None]
        return graph.shape(node.all_input_nodes[0]) == shape and all(
            value.numel() == 1 or tuple(value.shape) == (shape[1], 1, 1) for value in constants
        )
    return type(layer) in (*VALUEWISE, nn.BatchNorm2d, nn.PReLU)


def tail(graph: Graph, node: fx.Node) -> list[fx.Node]:
    """The channelwise layers that follow a node; each is the only reader of the one before, and none is shared."""
    found: list[fx.Node] = []
    reader = only_consumer(node)
    while reader is not None and reader.op == "call_module" and is_channelwise(graph, reader):
        if edit.shared_with(graph, reader):
            break
        found.append(reader)
        reader = only_consumer(reader)
    return found


def repeated(layer: nn.Module | None, channels: int, times: int) -> nn.Module:
    """A copy of a channelwise layer for `times` as many channels, with its constants repeated one set after another."""
    return rearranged(layer, list(range(channels)) * times)


def rearranged(layer: nn.Module | None, channels: Sequence[int]) -> nn.Module:
    """A copy of a channelwise layer whose channel n has the constants of the original's channel `channels[n]`."""
    result, index = copy.deepcopy(layer), torch.tensor(channels)
    if isinstance(result, nn.PReLU) and result.num_parameters > 1:
        result.num_parameters = len(channels)
        result.weight = nn.Parameter(result.weight.detach()[index])
    elif isinstance(result, nn.BatchNorm2d):
        result.num_features = len(channels)
        for name in ("weight", "bias", "running_mean", "running_var"):
            value = getattr(result, name)
            if value is not None:
                setattr(result, name, _like(value, value.detach()[index]))
    elif isinstance(result, ops.Affine):
        constants = (
            value if value is None or value.numel() == 1 else _like(value, value.detach()[index])
            for value in (result.scale, result.shift)
        )
        result = ops.Affine(*constants)
    assert result is not None
    return result


def _like(old: Tensor, new: Tensor) -> Tensor:
    return nn.Parameter(new) if isinstance(old, nn.Parameter) else new
