"""DDRNet-23-slim (Hong et al., "Deep Dual-resolution Networks for Real-time and Accurate Semantic Segmentation of Road
Scenes", 2021), at 512x512, without the head for training.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from architectures._convolutions import BNReLUConv, ConvBN
from architectures._ddrnet import layer
from torch import Tensor, nn

SIZE = (512, 512)


class DeepAggregationPyramidPooling(nn.Module):
    def __init__(self, inputs: int, middle: int, outputs: int) -> None:
        super().__init__()
        pools = [nn.AvgPool2d(2**k + 1, stride=2 ** (k - 1), padding=2 ** (k - 1)) for k in (2, 3, 4)]
        pools.append(nn.AdaptiveAvgPool2d((1, 1)))
        self.scale0 = BNReLUConv(inputs, middle, 1)
        self.scales = nn.ModuleList(nn.Sequential(pool, *BNReLUConv(inputs, middle, 1)) for pool in pools)
        self.processes = nn.ModuleList(BNReLUConv(middle, middle, 3) for _ in pools)
        self.compression = BNReLUConv(middle * 5, outputs, 1)
        self.shortcut = BNReLUConv(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2], x.shape[-1]
        x_list = [self.scale0(x)]
        for scale, process in zip(self.scales, self.processes, strict=True):
            up = F.interpolate(scale(x), size=[height, width], mode="bilinear")
            x_list.append(process(up + x_list[-1]))
        return self.compression(torch.cat(x_list, 1)) + self.shortcut(x)


class DualResNet(nn.Module):
    def __init__(self, classes: int = 19, planes: int = 32, spp_planes: int = 128, head_planes: int = 64) -> None:
        super().__init__()
        high = planes * 2
        self.conv1 = nn.Sequential(
            nn.Conv2d(3, planes, 3, 2, 1),
            nn.BatchNorm2d(planes),
            nn.ReLU(),
            nn.Conv2d(planes, planes, 3, 2, 1),
            nn.BatchNorm2d(planes),
            nn.ReLU(),
        )
        self.relu = nn.ReLU(inplace=False)
        self.layer1 = layer(planes, planes, 2)
        self.layer2 = layer(planes, planes * 2, 2, 2)
        self.layer3 = layer(planes * 2, planes * 4, 2, 2)
        self.layer4 = layer(planes * 4, planes * 8, 2, 2)
        self.layer5 = layer(planes * 8, planes * 8, 1, 2, bottleneck=True)
        self.compression3 = ConvBN(planes * 4, high, 1)
        self.compression4 = ConvBN(planes * 8, high, 1)
        self.down3 = ConvBN(high, planes * 4, 3, 2)
        self.down4 = nn.Sequential(
            *ConvBN(high, planes * 4, 3, 2), nn.ReLU(inplace=True), *ConvBN(planes * 4, planes * 8, 3, 2)
        )
        self.layer3_ = layer(planes * 2, high, 2)
        self.layer4_ = layer(high, high, 2)
        self.layer5_ = layer(high, high, 1, bottleneck=True)
        self.spp = DeepAggregationPyramidPooling(planes * 16, spp_planes, planes * 4)
        self.final_layer = nn.Sequential(
            *BNReLUConv(planes * 4, head_planes, 3),
            nn.BatchNorm2d(head_planes),
            nn.ReLU(inplace=True),
            nn.Conv2d(head_planes, classes, 1),
        )

    def forward(self, image: Tensor) -> Tensor:
        width_output = image.shape[-1] // 8
        height_output = image.shape[-2] // 8
        size = [height_output, width_output]

        x = self.layer1(self.conv1(image))
        x2 = self.layer2(self.relu(x))
        x3 = self.layer3(self.relu(x2))
        x_ = self.layer3_(self.relu(x2))
        x = x3 + self.down3(self.relu(x_))
        x_ = x_ + F.interpolate(self.compression3(self.relu(x3)), size=size, mode="bilinear")

        x4 = self.layer4(self.relu(x))
        x_ = self.layer4_(self.relu(x_))
        x = x4 + self.down4(self.relu(x_))
        x_ = x_ + F.interpolate(self.compression4(self.relu(x4)), size=size, mode="bilinear")

        x_ = self.layer5_(self.relu(x_))
        x = F.interpolate(self.spp(self.layer5(self.relu(x))), size=size, mode="bilinear")
        logits = self.final_layer(x + x_)
        return F.interpolate(logits, size=image.shape[-2:], mode="bilinear", align_corners=False)


def build() -> nn.Module:
    return DualResNet()
