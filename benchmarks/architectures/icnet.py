"""ICNet (Zhao et al., "ICNet for Real-Time Semantic Segmentation on High-Resolution Images", 2017), at 512x512.

Backbone ResNet-18, dilated, instead of the paper's pruned PSPNet-50; three resolutions, cascade feature fusion.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from architectures._convolutions import ConvBN, ConvBNReLU
from torch import Tensor, nn

SIZE = (512, 512)


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


class BasicBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.conv1 = ConvBNReLU(inputs, outputs, 3, stride, dilation=dilation)
        self.conv2 = ConvBN(outputs, outputs)
        self.downsample = ConvBN(inputs, outputs, 1, stride) if inputs != outputs else None
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        out = self.conv2(self.conv1(x))
        out = out + identity
        return self.relu(out)


def layer(inputs: int, outputs: int, stride: int = 1, first: int = 1, dilation: int = 1) -> nn.Sequential:
    return nn.Sequential(BasicBlock(inputs, outputs, stride, first), BasicBlock(outputs, outputs, 1, dilation))


class PyramidPooling(nn.Module):
    def __init__(self, inputs: int, outputs: int, bins: tuple[int, ...] = (1, 2, 3, 6)) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(each), ConvBNReLU(inputs, outputs, 1)) for each in bins
        )
        self.bottleneck = ConvBNReLU(inputs + len(bins) * outputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        outs = [resize(stage(x), x.size()[2:]) for stage in self.stages]
        return self.bottleneck(torch.cat([*outs, x], dim=1))


class CascadeFeatureFusion(nn.Module):
    def __init__(self, low: int, high: int, outputs: int) -> None:
        super().__init__()
        self.conv_low = ConvBN(low, outputs, 3, dilation=2)
        self.conv_high = ConvBN(high, outputs, 1)

    def forward(self, x_low: Tensor, x_high: Tensor) -> Tensor:
        x_low = self.conv_low(resize(x_low, x_high.size()[2:]))
        return F.relu(x_low + self.conv_high(x_high), inplace=True)


class ICNet(nn.Module):
    def __init__(self, classes: int = 19) -> None:
        super().__init__()
        self.conv_sub1 = nn.Sequential(ConvBNReLU(3, 32, 3, 2), ConvBNReLU(32, 32, 3, 2), ConvBNReLU(32, 64, 3, 2))
        self.stem = nn.Sequential(
            ConvBNReLU(3, 32, 3, 2), ConvBNReLU(32, 32), ConvBNReLU(32, 64), nn.MaxPool2d(3, 2, 1)
        )
        self.layer1 = layer(64, 64)
        self.layer2 = layer(64, 128, 2)
        self.layer3 = layer(128, 256, 1, 1, 2)
        self.layer4 = layer(256, 512, 1, 2, 4)
        self.conv_sub2 = ConvBNReLU(128, 256, 1)
        self.psp = PyramidPooling(512, 256)
        self.conv_sub4 = ConvBNReLU(256, 256, 1)
        self.cff_24 = CascadeFeatureFusion(256, 256, 128)
        self.cff_12 = CascadeFeatureFusion(128, 64, 128)
        self.conv_cls = nn.Sequential(ConvBNReLU(128, 128), nn.Dropout2d(0.1), nn.Conv2d(128, classes, 1))

    def forward(self, image: Tensor) -> Tensor:
        sub1 = self.conv_sub1(image)
        x = F.interpolate(image, scale_factor=0.5, mode="bilinear", align_corners=False)
        x = self.layer2(self.layer1(self.stem(x)))
        sub2 = self.conv_sub2(x)
        x = F.interpolate(x, scale_factor=0.5, mode="bilinear", align_corners=False)
        sub4 = self.conv_sub4(self.psp(self.layer4(self.layer3(x))))
        x_12 = self.cff_12(self.cff_24(sub4, sub2), sub1)
        up = F.interpolate(x_12, scale_factor=2, mode="bilinear", align_corners=False)
        return resize(self.conv_cls(up), image.size()[2:])


def build() -> nn.Module:
    return ICNet()
