"""SwiftNetRN-18 (Orsic et al., "In Defense of Pre-trained ImageNet Architectures for Real-time Semantic Segmentation of
Road-driving Images", 2019), single scale, at 256x256.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from architectures._convolutions import BNReLUConv
from torch import Tensor, nn

SIZE = (256, 256)


def upsample(x: Tensor, size: torch.Size | tuple[int, int]) -> Tensor:
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


class BasicBlock(nn.Module):
    """Also returns its result before the last ReLU, which the decoder takes."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu_inp = nn.ReLU(inplace=True)
        self.relu = nn.ReLU(inplace=False)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        residual = x if self.downsample is None else self.downsample(x)
        out = self.bn2(self.conv2(self.relu_inp(self.bn1(self.conv1(x)))))
        out = out + residual
        return self.relu(out), out


class SpatialPyramidPooling(nn.Module):
    def __init__(self, inputs: int = 512, squeezed: int = 128, level: int = 42, outputs: int = 128) -> None:
        super().__init__()
        self.grids = (8, 4, 2, 1)
        self.spp_bn = BNReLUConv(inputs, squeezed, 1)
        self.levels = nn.ModuleList(BNReLUConv(squeezed, level, 1) for _ in self.grids)
        self.fuse = BNReLUConv(squeezed + level * len(self.grids), outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        target_size = x.size()[2:4]
        ar = target_size[1] / target_size[0]
        x = self.spp_bn(x)
        levels = [x]
        for grid, level in zip(self.grids, self.levels, strict=True):
            grid_size = (grid, max(1, round(ar * grid)))
            levels.append(upsample(level(F.adaptive_avg_pool2d(x, grid_size)), target_size))
        return self.fuse(torch.cat(levels, 1))


class Upsample(nn.Module):
    def __init__(self, skip: int, channels: int = 128) -> None:
        super().__init__()
        self.bottleneck = BNReLUConv(skip, channels, 1)
        self.blend_conv = BNReLUConv(channels, channels, 3)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        skip = self.bottleneck(skip)
        x = upsample(x, skip.size()[2:4])
        return self.blend_conv(x + skip)


class SwiftNet(nn.Module):
    def __init__(self, classes: int = 19) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        channels = (64, 64, 128, 256, 512)
        self.layers = nn.ModuleList(
            nn.ModuleList([BasicBlock(inputs, outputs, 1 if inputs == outputs else 2), BasicBlock(outputs, outputs)])
            for inputs, outputs in pairwise(channels)
        )
        self.spp = SpatialPyramidPooling()
        self.upsample = nn.ModuleList(Upsample(skip) for skip in (256, 128, 64))
        self.logits = nn.Sequential(nn.BatchNorm2d(128), nn.ReLU(inplace=True), nn.Conv2d(128, classes, 1))

    def forward(self, image: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(image))))
        skips = []
        for layer in self.layers:
            for block in layer:
                x, skip = block(x)
            skips.append(skip)
        x = self.spp(skips.pop())
        for up, skip in zip(self.upsample, reversed(skips), strict=True):
            x = up(x, skip)
        return upsample(self.logits(x), image.shape[2:4])


def build() -> nn.Module:
    return SwiftNet()
