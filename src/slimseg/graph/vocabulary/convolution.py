"""Layers that sum over channels: convolutions, transposed convolutions and linear layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch_pruning
from torch import Tensor, fx, nn

from slimseg.graph.channel_trace import Channels, ChannelTrace
from slimseg.graph.shapes import Shape, pair
from slimseg.graph.vocabulary.operator import MacsRule, Operator, ShapeRule
from slimseg.graph.vocabulary.rules import held_channels, require_channels, window_counts

CONVOLUTIONS: tuple[type[nn.Module], ...] = (nn.Conv2d, nn.ConvTranspose2d)
Mixing = nn.Conv2d | nn.ConvTranspose2d | nn.Linear
MIXING = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)  # their outputs are sums over input channels


class CroppedConvTranspose2d(nn.ConvTranspose2d):
    """Transposed convolution whose output is cropped by (left, right, top, bottom) pixels, in addition to its padding.

    TFLite's SAME and ONNX's asymmetric pads crop more on one side than on the other, which torch's padding cannot.
    """

    def __init__(self, *args: Any, crop: tuple[int, int, int, int], **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.crop = crop

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        full = super().forward(input, output_size)
        left, right, top, bottom = self.crop
        return full[..., top : full.shape[2] - bottom, left : full.shape[3] - right]

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, crop={self.crop}"  # type: ignore[no-untyped-call]


def is_depthwise(layer: nn.Module | None) -> bool:
    """Whether a convolution is depthwise, with one filter for each input channel or several (a "multiplier")."""
    return isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) and layer.groups == layer.in_channels > 1


def keeps_channels_apart(layer: nn.Module | None) -> bool:
    """Whether output channel k depends on input channel k only, as in depthwise convolutions with one filter each.

    A convolution of one input and one output channel counts, too.
    """
    return isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) and layer.groups == layer.in_channels == layer.out_channels


# Shapes


def _convolution_shape(layer: nn.Conv2d, shapes: Sequence[Shape]) -> Shape:
    require_channels(shapes[0], layer.in_channels)
    return (shapes[0][0], layer.out_channels, *window_counts(layer, shapes[0], layer.dilation))


def _transposed_shape(layer: nn.ConvTranspose2d, shapes: Sequence[Shape]) -> Shape:
    require_channels(shapes[0], layer.in_channels)
    settings = (layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.output_padding)
    height, width = (
        (length - 1) * stride - 2 * padding + spread * (kernel - 1) + extra + 1
        for length, kernel, stride, padding, spread, extra in zip(shapes[0][2:], *map(pair, settings), strict=True)
    )
    return (shapes[0][0], layer.out_channels, height, width)


def _cropped_shape(layer: CroppedConvTranspose2d, shapes: Sequence[Shape]) -> Shape:
    batch, channels, height, width = _transposed_shape(layer, shapes)
    left, right, top, bottom = layer.crop
    return (batch, channels, height - top - bottom, width - left - right)


def _linear_shape(layer: nn.Linear, shapes: Sequence[Shape]) -> Shape:
    if shapes[0][-1] != layer.in_features:
        raise ValueError(f"it needs {layer.in_features} features, not {shapes[0]}")
    return (*shapes[0][:-1], layer.out_features)


# Multiply-accumulates


def _convolution_macs(layer: nn.Conv2d, inputs: Sequence[Shape], output: Shape) -> int:
    return math.prod(output) * math.prod(layer.kernel_size) * layer.in_channels // layer.groups


def _transposed_macs(layer: nn.ConvTranspose2d, inputs: Sequence[Shape], output: Shape) -> int:
    return math.prod(inputs[0]) * math.prod(layer.kernel_size) * layer.out_channels // layer.groups


def _linear_macs(layer: nn.Linear, inputs: Sequence[Shape], output: Shape) -> int:
    return math.prod(output) * layer.in_features


# Channels: every output channel depends on every input channel of its group


def _mixed(trace: ChannelTrace, node: fx.Node, layer: nn.Module) -> Channels:
    trace.read[node.name], trace.made[node.name] = trace.source(node), trace.new(trace.count(node))
    return trace.made[node.name]


def _convolution_channels(trace: ChannelTrace, node: fx.Node, layer: nn.Conv2d | nn.ConvTranspose2d) -> Channels | None:
    if layer.groups == 1:
        return _mixed(trace, node, layer)
    return held_channels(trace, node, layer) if keeps_channels_apart(layer) else None


def _linear_channels(trace: ChannelTrace, node: fx.Node, layer: nn.Linear) -> Channels | None:
    """Holds for inputs (N, C) only: in other tensors a linear layer's channels are not in dimension 1."""
    return _mixed(trace, node, layer) if len(trace.shape(node)) == 2 else None


def _cut_outputs(layer: nn.Conv2d | nn.ConvTranspose2d, dropped: list[int]) -> None:
    if is_depthwise(layer):
        torch_pruning.prune_depthwise_conv_out_channels(layer, dropped)
    else:
        torch_pruning.prune_conv_out_channels(layer, dropped)


def _convolution(kind: type[nn.Module], shape: ShapeRule, macs: MacsRule) -> Operator:
    return Operator(
        kind,
        shape,
        macs,
        channels=_convolution_channels,
        scales=_mixed,
        cut_outputs=_cut_outputs,
        cut_inputs=torch_pruning.prune_conv_in_channels,
    )


OPERATORS = (
    _convolution(nn.Conv2d, _convolution_shape, _convolution_macs),
    _convolution(nn.ConvTranspose2d, _transposed_shape, _transposed_macs),
    _convolution(CroppedConvTranspose2d, _cropped_shape, _transposed_macs),
    Operator(
        nn.Linear,
        _linear_shape,
        _linear_macs,
        channels=_linear_channels,
        scales=_linear_channels,
        cut_outputs=torch_pruning.prune_linear_out_channels,
        cut_inputs=torch_pruning.prune_linear_in_channels,
    ),
)
