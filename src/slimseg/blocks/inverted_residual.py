"""MobileNetV2's inverted residual with a linear bottleneck.

    y = x + P · act(D ∗ act(E · x))      E 1x1 to t·C channels, D depthwise 3x3, P 1x1 to the output channels

A batch norm follows every convolution, and no activation follows P. x is added only if input and output have the same
shape.
Sandler et al., "MobileNetV2", 2018, table 1 and figure 4.
"""

from __future__ import annotations

from torch import Tensor, nn

from slimseg.blocks.convolution import Activation, ConvNorm, depthwise
from slimseg.graph.ops import Add


class InvertedResidual(nn.Module):
    """(N, in, H, W) to (N, out, ⌈H/stride⌉, ⌈W/stride⌉), with `expansion` · in inner channels; E is left out for 1."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        expansion: int = 6,
        activation: Activation = nn.ReLU6,
    ) -> None:
        super().__init__()
        inner = in_channels * expansion
        self.expand = ConvNorm(in_channels, inner, activation=activation) if expansion > 1 else None
        self.depthwise = depthwise(inner, stride, activation)
        self.project = ConvNorm(inner, out_channels, activation=None)
        self.add = Add() if in_channels == out_channels and stride == 1 else None

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.expand is None else self.expand(x)
        y = self.project(self.depthwise(y))
        return y if self.add is None else self.add(x, y)  # type: ignore[no-any-return]
