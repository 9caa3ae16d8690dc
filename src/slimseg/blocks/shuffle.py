"""ShuffleNetV2's units (article, section 3.3).

    unit c (stride 1)     y = [x₄, x₁, f(x₂, x₃)]         x = [x₁, x₂, x₃, x₄] quarters of the channels
    unit d (stride 2)     y = [g(x), f(x)]                 all channels go into both branches

f is 1x1, depthwise 3x3, 1x1; g is depthwise 3x3, 1x1; every 1x1 has batch norm and activation, a depthwise layer
batch norm alone. Ma et al., "ShuffleNet V2", 2018, figure 3 (c) and (d).

The paper splits the channels into halves, convolves the second one and then deals the channels of both out in turn
("channel shuffle"): a reshape to (2, C/2), a transpose and a reshape back. All that this has to do is to bring old and
new channels into both halves of the next split; the order within a half is nothing that the next 1x1 convolution
could not learn. So here a unit convolves the middle half of what it is given, which is half old and half new, and
what passes goes round by a quarter: a new channel is convolved again at once or after two units. That is one slice
more than without any shuffle. Measured on LiteRT (XNNPACK, one x86 thread), four units in a row, 32 channels at 96x96
to 256 at 16x16, against reshape, transpose, reshape: 1.1x to 1.5x faster in float32, 1.4x to 1.9x in int8. The
shuffle as a 1x1 convolution by a permutation was nowhere faster than this. A first 1x1 convolution that reads all
channels, with nothing to slice before it, was 1.2x to 1.4x faster in int8 with 64 channels or fewer and slower in
float32 and with more channels; it is another unit than the paper's, and is not used.
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
        ValueError: C is not.
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

    With stride 1 it is the unit that changes the number of channels.

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
