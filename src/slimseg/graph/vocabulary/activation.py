"""Activations: elementwise functions, and softmax."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch_pruning
from torch import Tensor, fx, nn

from slimseg.graph.channel_trace import Channels, ChannelTrace
from slimseg.graph.shapes import Shape
from slimseg.graph.vocabulary.operator import Operator, kinds
from slimseg.graph.vocabulary.rules import (
    broadcast_shape,
    constant_channels,
    cut_constants,
    held_channels,
    same_channels,
    same_shape,
)


class SpatialPReLU(nn.Module):
    """PReLU with a separate slope for every channel and pixel: (N, C, H, W), with slopes (C, H, W)."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(x < 0, x * self.weight, x)


def _prelu_shape(layer: nn.PReLU, shapes: Sequence[Shape]) -> Shape:
    if layer.num_parameters not in (1, shapes[0][1]):
        raise ValueError(f"it has {layer.num_parameters} slopes for an input of {shapes[0]}")
    return shapes[0]


def _spatial_prelu_shape(layer: SpatialPReLU, shapes: Sequence[Shape]) -> Shape:
    return broadcast_shape(layer, [*shapes, tuple(layer.weight.shape)])


def _prelu_channels(trace: ChannelTrace, node: fx.Node, layer: nn.PReLU) -> Channels:
    return held_channels(trace, node, layer) if layer.num_parameters > 1 else same_channels(trace, node, layer)


# An activation with f(s·x) = s·f(x) for s > 0 has a rule `scales`: its output channels scale with its input channels.
_PLAIN = (  # without weights, so that they fit any number of channels
    Operator(nn.ReLU, same_shape, channels=same_channels, scales=same_channels, never_negative=True),
    Operator(nn.ReLU6, same_shape, channels=same_channels, never_negative=True),
    Operator(nn.Hardtanh, same_shape, channels=same_channels),
    Operator(nn.LeakyReLU, same_shape, channels=same_channels, scales=same_channels),
    Operator(nn.Hardswish, same_shape, channels=same_channels),
    Operator(nn.Hardsigmoid, same_shape, channels=same_channels, never_negative=True),
    Operator(nn.SiLU, same_shape, channels=same_channels),
    Operator(nn.Sigmoid, same_shape, channels=same_channels, never_negative=True),
    Operator(nn.Tanh, same_shape, channels=same_channels),
    Operator(nn.GELU, same_shape, channels=same_channels),
    Operator(nn.ELU, same_shape, channels=same_channels),
)
_LEARNT = (
    Operator(
        nn.PReLU,
        _prelu_shape,
        channels=_prelu_channels,
        scales=same_channels,
        cut_outputs=torch_pruning.prune_prelu_out_channels,
    ),
    Operator(
        SpatialPReLU,
        _spatial_prelu_shape,
        channels=constant_channels,
        scales=same_channels,
        cut_outputs=cut_constants,
    ),
)
OPERATORS = (*_PLAIN, *_LEARNT, Operator(nn.Softmax, same_shape, never_negative=True))
PLAIN_ACTIVATIONS = kinds(_PLAIN)
ACTIVATIONS = kinds((*_PLAIN, *_LEARNT))
