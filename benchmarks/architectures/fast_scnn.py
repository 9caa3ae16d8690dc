"""Fast-SCNN (Poudel, Liwicki, Cipolla, "Fast-SCNN: Fast Semantic Segmentation Network", 2019), at 512x512.

Pyramid pooling in windows of 1, 2, 3 and 6, so that two of the four do not divide the map.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from architectures._context_net import Bottleneck, separable
from architectures._convolutions import ConvBNReLU
from torch import Tensor, nn

SIZE = (512, 512)


class PyramidPooling(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(ConvBNReLU(inputs, inputs // 4, 1) for _ in range(4))
        self.out = ConvBNReLU(inputs * 2, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        size = x.size()[2:]
        features = [x]
        for bins, branch in zip((1, 2, 3, 6), self.branches, strict=True):
            pooled = branch(F.adaptive_avg_pool2d(x, bins))
            features.append(F.interpolate(pooled, size, mode="bilinear", align_corners=True))
        return self.out(torch.cat(features, dim=1))


class FeatureFusion(nn.Module):
    def __init__(self, high: int, low: int, outputs: int) -> None:
        super().__init__()
        self.depthwise = ConvBNReLU(low, outputs, 3, 1, outputs)
        self.low = nn.Sequential(nn.Conv2d(outputs, outputs, 1), nn.BatchNorm2d(outputs))
        self.high = nn.Sequential(nn.Conv2d(high, outputs, 1), nn.BatchNorm2d(outputs))
        self.relu = nn.ReLU(True)

    def forward(self, high: Tensor, low: Tensor) -> Tensor:
        low = F.interpolate(low, scale_factor=4, mode="bilinear", align_corners=True)
        return self.relu(self.high(high) + self.low(self.depthwise(low)))


class FastSCNN(nn.Module):
    def __init__(self, classes: int = 19) -> None:
        super().__init__()
        self.downsample = nn.Sequential(ConvBNReLU(3, 32, 3, 2), separable(32, 48, 2), separable(48, 64, 2))
        blocks, inputs = [], 64
        for outputs, stride in ((64, 2), (96, 2), (128, 1)):
            blocks.append(Bottleneck(inputs, outputs, 6, stride))
            blocks += [Bottleneck(outputs, outputs, 6, 1) for _ in range(2)]
            inputs = outputs
        self.extractor = nn.Sequential(*blocks, PyramidPooling(128, 128))
        self.fusion = FeatureFusion(64, 128, 128)
        self.classifier = nn.Sequential(
            separable(128, 128), separable(128, 128), nn.Dropout(0.1), nn.Conv2d(128, classes, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        size = x.size()[2:]
        high = self.downsample(x)
        low = self.extractor(high)
        return F.interpolate(self.classifier(self.fusion(high, low)), size, mode="bilinear", align_corners=True)


def build() -> nn.Module:
    return FastSCNN()
