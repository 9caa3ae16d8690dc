"""U-Net with a MobileOne-S0 encoder (Vasu et al., "MobileOne: An Improved One Millisecond Mobile Backbone", 2022).

Input 256x256. The form in which it is trained: each block has up to six branches, not merged yet. Decoder as in
segmentation_models.pytorch.
"""

from __future__ import annotations

from architectures._convolutions import ConvBN
from architectures._mobileone import MobileOneUNet
from torch import Tensor, nn

SIZE = (256, 256)


class MobileOneBlock(nn.Module):
    """Four convolutions, a 1x1 convolution beside those of 3x3, and a normalised shortcut where shapes allow it."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, groups: int) -> None:
        super().__init__()
        self.rbr_skip = nn.BatchNorm2d(inputs) if inputs == outputs and stride == 1 else None
        self.rbr_conv = nn.ModuleList(ConvBN(inputs, outputs, kernel, stride, groups) for _ in range(4))
        self.rbr_scale = ConvBN(inputs, outputs, 1, stride, groups) if kernel > 1 else None
        self.activation = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        identity_out = 0
        if self.rbr_skip is not None:
            identity_out = self.rbr_skip(x)
        scale_out = 0
        if self.rbr_scale is not None:
            scale_out = self.rbr_scale(x)
        out = scale_out + identity_out
        for conv in self.rbr_conv:
            out += conv(x)
        return self.activation(out)


def build() -> nn.Module:
    return MobileOneUNet(MobileOneBlock)
