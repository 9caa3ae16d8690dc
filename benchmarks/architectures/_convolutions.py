"""Convolutions without bias beside their batch normalisation."""

from __future__ import annotations

from torch import nn


class ConvBN(nn.Sequential):
    def __init__(
        self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1, dilation: int = 1
    ) -> None:
        padding = kernel // 2 * dilation
        conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, groups, bias=False)
        super().__init__(conv, nn.BatchNorm2d(outputs))


class ConvBNReLU(nn.Sequential):
    def __init__(
        self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1, dilation: int = 1
    ) -> None:
        layers = ConvBN(inputs, outputs, kernel, stride, groups, dilation)
        super().__init__(*layers, nn.ReLU(inplace=True))


class BNReLUConv(nn.Sequential):
    """Normalises before the convolution (pre-activation)."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, groups: int = 1) -> None:
        conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False)
        super().__init__(nn.BatchNorm2d(inputs), nn.ReLU(inplace=True), conv)
