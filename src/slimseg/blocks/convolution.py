"""Convolution, batch norm and activation, from which all other blocks are built."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

Activation = Callable[[], nn.Module]


class ConvNorm(nn.Sequential):
    """activation(norm(conv(x))): (N, in, H, W) to (N, out, ⌈H/stride⌉, ⌈W/stride⌉); the activation may be None.

    The kernel size is odd, and the padding is half of it. The batch norm has the bias. Weights are initialised by He et
    al., "Delving Deep into Rectifiers", 2015, eq. 10, so that values keep their variance from layer to layer.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        stride: int = 1,
        groups: int = 1,
        activation: Activation | None = nn.ReLU,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride, kernel_size // 2, groups=groups, bias=False
        )
        nn.init.kaiming_normal_(self.conv.weight, nonlinearity="relu")
        self.norm = nn.BatchNorm2d(out_channels)
        if activation is not None:
            self.activation = activation()


def depthwise(channels: int, stride: int = 1, activation: Activation | None = None) -> ConvNorm:
    """A depthwise 3x3 convolution."""
    return ConvNorm(channels, channels, 3, stride, channels, activation)


def rounded(channels: float, multiple: int = 8) -> int:
    """The nearest positive multiple of `multiple`: runtimes have kernels for multiples of 8 channels."""
    return multiple * max(1, round(channels / multiple))
