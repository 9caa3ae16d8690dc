"""ContextNet (Poudel et al., "ContextNet: Exploring Context and Detail for Semantic Segmentation in Real-time", 2018).

Input 512x512; the variant cn14: a deep branch sees a quarter of the resolution, a shallow branch all of it.
"""

from __future__ import annotations

import torch.nn.functional as F
from architectures._context_net import Bottleneck, separable
from architectures._convolutions import ConvBNReLU
from torch import Tensor, nn

SIZE = (512, 512)
SETTINGS = ((1, 32, 1, 1), (6, 32, 1, 1), (6, 48, 3, 2), (6, 64, 3, 2), (6, 96, 2, 1), (6, 128, 2, 1))


class FeatureFusion(nn.Module):
    def __init__(self, channels: int = 128) -> None:
        super().__init__()
        self.dwconv = ConvBNReLU(channels, channels, 3, groups=channels, dilation=4)
        self.conv_lower_res = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.BatchNorm2d(channels))
        self.conv_higher_res = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.BatchNorm2d(channels))
        self.relu = nn.ReLU(True)

    def forward(self, higher: Tensor, lower: Tensor) -> Tensor:
        lower = F.interpolate(lower, scale_factor=4, mode="bilinear", align_corners=True)
        lower = self.conv_lower_res(self.dwconv(lower))
        return self.relu(self.conv_higher_res(higher) + lower)


class ContextNet(nn.Module):
    def __init__(self, classes: int = 19) -> None:
        super().__init__()
        self.spatial_detail = nn.Sequential(
            ConvBNReLU(3, 32, 3, 2), separable(32, 64, 2), separable(64, 128, 2), separable(128, 128)
        )
        blocks, inputs = [], 32
        for expansion, outputs, count, stride in SETTINGS:
            for index in range(count):
                blocks.append(Bottleneck(inputs, outputs, expansion, stride if index == 0 else 1))
                inputs = outputs
        self.context = nn.Sequential(ConvBNReLU(3, 32, 3, 2), *blocks, separable(128, 128))
        self.fusion = FeatureFusion()
        self.classifier = nn.Sequential(
            separable(128, 128), separable(128, 128), nn.Dropout(0.1), nn.Conv2d(128, classes, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        size = x.size()[2:]
        higher = self.spatial_detail(x)
        quarter = F.interpolate(x, scale_factor=0.25, mode="bilinear", align_corners=True)
        logits = self.classifier(self.fusion(higher, self.context(quarter)))
        return F.interpolate(logits, size, mode="bilinear", align_corners=True)


def build() -> nn.Module:
    return ContextNet()
