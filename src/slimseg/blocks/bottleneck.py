"""A bottleneck without activations: a k×k convolution on fewer channels between two 1x1 convolutions.

Kim et al., "Compression of Deep Convolutional Neural Networks for Fast and Low Power Mobile Applications", 2016,
section 3.1: the Tucker-2 form of a convolution.
"""

from __future__ import annotations

from torch import Tensor, nn


class LowRankConv2d(nn.Module):
    """expand(core(reduce(x))): (N, in, H, W) to (N, out, H', W'); `ranks` are the core's input and output channels.

    `core` has the stride, padding and dilation; only `expand` has the bias.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        ranks: tuple[int, int],
        kernel_size: tuple[int, int],
        stride: tuple[int, int] = (1, 1),
        padding: tuple[int, int] = (0, 0),
        dilation: tuple[int, int] = (1, 1),
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(in_channels, ranks[0], 1, bias=False)
        self.core = nn.Conv2d(*ranks, kernel_size, stride, padding, dilation, bias=False)
        self.expand = nn.Conv2d(ranks[1], out_channels, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.expand(self.core(self.reduce(x)))  # type: ignore[no-any-return]
