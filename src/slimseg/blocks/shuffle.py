"""ShuffleNetV2's units.

    unit c (stride 1)     y = [x₄, x₁, f(x₂, x₃)]         x = [x₁, x₂, x₃, x₄] quarters of the channels
    unit d (stride 2)     y = [g(x), f(x)]                 both branches read all channels

f is 1x1, depthwise 3x3, 1x1; g is depthwise 3x3, 1x1. Batch norm and activation follow every 1x1, only batch norm
follows a depthwise layer. Ma et al., "ShuffleNet V2", 2018, figure 3 (c) and (d).

The paper splits the channels into halves, convolves the second half and then interleaves the channels of both ("channel
shuffle") by a reshape to (2, C/2), a transpose and a reshape back. The shuffle only has to bring old and new channels
into both halves of the next split; the next 1x1 convolution can learn any order within a half. So here a unit convolves
the middle half of its input, which is half old and half new channels, and the others are rotated by a quarter: a new
channel is convolved again in the next unit or after two more. This takes one slice more than no shuffle at all.
Measured with XNNPACK on one x86 thread, for four units in a row, 32 channels at 96x96 to 256 at 16x16, compared
with reshape, transpose, reshape: 1.1x to 1.5x faster in float32, 1.4x to 1.9x in int8. A 1x1 convolution by a
permutation was never faster than this. A first 1x1 convolution that reads all channels, without slices, was 1.2x to
1.4x faster in int8 with 64 channels or fewer, and slower in float32 and with more channels; it is not the paper's unit,
and is not used.
"""

from __future__ import annotations

from torch import Tensor, nn

from slimseg.blocks.convolution import Activation, ConvNorm, depthwise
from slimseg.graph.ops import Concat, Slice


def _branch(in_channels: int, out_channels: int, stride: int, activation: Activation) -> nn.Sequential:
    return nn.Sequential(
        ConvNorm(in_channels, out_channels, activation=activation),
        depthwise(out_channels, stride),
        ConvNorm(out_channels, out_channels, activation=activation),
    )


class ShuffleUnit(nn.Module):
    """Unit c: (N, C, H, W) to the same shape; C is a multiple of 4.

    Raises:
        ValueError: C is no multiple of 4.
    """

    def __init__(self, channels: int, activation: Activation = nn.ReLU) -> None:
        super().__init__()
        if channels % 4:
            raise ValueError(f"a ShuffleNetV2 unit needs a multiple of 4 channels, not {channels}")
        quarter = channels // 4
        self.first = Slice(1, 0, quarter)
        self.middle = Slice(1, quarter, 3 * quarter)
        self.last = Slice(1, 3 * quarter, channels)
        self.branch = _branch(2 * quarter, 2 * quarter, 1, activation)
        self.concat = Concat()

    def forward(self, x: Tensor) -> Tensor:
        return self.concat(self.last(x), self.first(x), self.branch(self.middle(x)))  # type: ignore[no-any-return]


class ShuffleDownUnit(nn.Module):
    """Unit d: (N, in, H, W) to (N, out, ⌈H/stride⌉, ⌈W/stride⌉); `out_channels` is even.

    With stride 1 it only changes the number of channels.

    Raises:
        ValueError: `out_channels` is odd.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 2, activation: Activation = nn.ReLU) -> None:
        super().__init__()
        if out_channels % 2:
            raise ValueError(f"a ShuffleNetV2 unit needs an even number of channels, not {out_channels}")
        half = out_channels // 2
        self.shortcut = nn.Sequential(
            depthwise(in_channels, stride), ConvNorm(in_channels, half, activation=activation)
        )
        self.branch = _branch(in_channels, half, stride, activation)
        self.concat = Concat()

    def forward(self, x: Tensor) -> Tensor:
        return self.concat(self.shortcut(x), self.branch(x))  # type: ignore[no-any-return]
