"""ResNet's blocks.

    basic        y = act(x' + W₂ ∗ act(W₁ ∗ x))              W₁, W₂ 3x3
    bottleneck   y = act(x' + W₃ · act(W₂ ∗ act(W₁ · x)))    W₁, W₃ 1x1, W₂ 3x3 on a quarter of the channels

x' is x, or a 1x1 convolution of x if the shape changes; a batch norm follows every convolution.
He et al., "Deep Residual Learning for Image Recognition", 2016, figures 2 and 5. The 3x3 convolution has the stride, as
in the variant known as ResNet v1.5.
"""

from __future__ import annotations

from torch import Tensor, nn

from slimseg.blocks.convolution import Activation, ConvNorm, rounded
from slimseg.graph.ops import Add


class _Residual(nn.Module):
    """activation(shortcut(x) + body(x))."""

    def __init__(
        self, body: nn.Module, in_channels: int, out_channels: int, stride: int, activation: Activation | None
    ) -> None:
        super().__init__()
        same = in_channels == out_channels and stride == 1
        self.body = body
        self.shortcut = None if same else ConvNorm(in_channels, out_channels, 1, stride, activation=None)
        self.add = Add()
        self.activation = None if activation is None else activation()

    def forward(self, x: Tensor) -> Tensor:
        y = self.add(self.body(x), x if self.shortcut is None else self.shortcut(x))
        return y if self.activation is None else self.activation(y)  # type: ignore[no-any-return]


class BasicBlock(_Residual):
    """Two 3x3 convolutions: (N, in, H, W) to (N, out, ⌈H/stride⌉, ⌈W/stride⌉)."""

    def __init__(
        self, in_channels: int, out_channels: int, stride: int = 1, activation: Activation | None = nn.ReLU
    ) -> None:
        body = nn.Sequential(
            ConvNorm(in_channels, out_channels, 3, stride), ConvNorm(out_channels, out_channels, 3, activation=None)
        )
        super().__init__(body, in_channels, out_channels, stride, activation)


class Bottleneck(_Residual):
    """1x1, 3x3 and 1x1: (N, in, H, W) to (N, out, ⌈H/stride⌉, ⌈W/stride⌉).

    The 3x3 has `inner` channels, by default a quarter of `out_channels` rounded to a multiple of 8.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        inner: int | None = None,
        activation: Activation | None = nn.ReLU,
    ) -> None:
        inner = inner or rounded(out_channels / 4)
        body = nn.Sequential(
            ConvNorm(in_channels, inner),
            ConvNorm(inner, inner, 3, stride),
            ConvNorm(inner, out_channels, activation=None),
        )
        super().__init__(body, in_channels, out_channels, stride, activation)
