"""U-Net with a MobileOne-S0 encoder (Vasu et al., "MobileOne: An Improved One Millisecond Mobile Backbone", 2022).

Input 256x256. The inference form: the branches of each block are merged into one convolution. Decoder as in
segmentation_models.pytorch.
"""

from __future__ import annotations

from architectures._mobileone import MobileOneUNet
from torch import nn

SIZE = (256, 256)


def block(inputs: int, outputs: int, kernel: int, stride: int, groups: int) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=True)
    return nn.Sequential(conv, nn.ReLU())


def build() -> nn.Module:
    return MobileOneUNet(block)
