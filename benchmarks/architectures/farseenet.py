"""FarSee-Net (Zhang, Zhang, "FarSee-Net: Real-Time Semantic Segmentation by Efficient Multi-scale Context Aggregation
and Feature Space Super-resolution", 2020), at 256x256.

ResNet-18, cascaded factorised ASPP, sub-pixel convolution (pixel shuffle); the image keeps its full resolution.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from architectures._convolutions import ConvBN, ConvBNReLU
from torch import Tensor, nn

SIZE = (256, 256)


class BasicBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = ConvBNReLU(inputs, outputs, 3, stride)
        self.conv2 = ConvBN(outputs, outputs, 3)
        changes = inputs != outputs or stride != 1
        self.downsample = ConvBN(inputs, outputs, 1, stride) if changes else nn.Identity()
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv2(self.conv1(x))
        out += self.downsample(x)
        return self.relu(out)


def layer(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(BasicBlock(inputs, outputs, stride), BasicBlock(outputs, outputs))


class FactorisedASPP(nn.Module):
    """Atrous convolutions factorised into 1x1 and dilated depthwise ones, beside the global mean."""

    def __init__(self, inputs: int, outputs: int, rates: tuple[int, ...] = (1, 6, 12, 18)) -> None:
        super().__init__()
        self.reduce = ConvBNReLU(inputs, outputs, 1)
        self.atrous = nn.ModuleList(
            nn.Sequential(ConvBNReLU(outputs, outputs, 3, 1, outputs, rate), ConvBNReLU(outputs, outputs, 1))
            for rate in rates
        )
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d((1, 1)), ConvBNReLU(inputs, outputs, 1))
        self.project = ConvBNReLU((len(rates) + 1) * outputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        reduced = self.reduce(x)
        results = [each(reduced) for each in self.atrous]
        results.append(self.pool(x).expand(-1, -1, x.size(2), x.size(3)))
        return self.project(torch.cat(results, dim=1))


class FarSeeNet(nn.Module):
    def __init__(self, classes: int = 19) -> None:
        super().__init__()
        self.stem = nn.Sequential(ConvBNReLU(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1))
        self.to8 = nn.Sequential(layer(64, 64, 1), layer(64, 128, 2))
        self.to16 = layer(128, 256, 2)
        self.to32 = layer(256, 512, 2)
        self.aspp32 = FactorisedASPP(512, 256)
        self.low = ConvBNReLU(256, 128, 1)
        self.aspp16 = FactorisedASPP(256 + 128, 128)
        self.detail = ConvBNReLU(128, 48, 1)
        self.fuse = ConvBNReLU(128 + 48, 128, 3)
        self.super_resolution = nn.Sequential(nn.Conv2d(128, classes * 4**2, 3, padding=1), nn.PixelShuffle(4))

    def forward(self, image: Tensor) -> Tensor:
        x8 = self.to8(self.stem(image))
        x16 = self.to16(x8)
        high = F.interpolate(self.aspp32(self.to32(x16)), scale_factor=2, mode="bilinear", align_corners=True)
        high = self.aspp16(torch.cat([high, self.low(x16)], dim=1))
        high = F.interpolate(high, scale_factor=2, mode="bilinear", align_corners=True)
        x = self.fuse(torch.cat([high, self.detail(x8)], dim=1))
        logits = self.super_resolution(x)
        return F.interpolate(logits, size=image.shape[2:], mode="bilinear", align_corners=False)


def build() -> nn.Module:
    return FarSeeNet()
