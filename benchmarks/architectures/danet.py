"""DANet (Fu et al., "Dual Attention Network for Scene Segmentation", 2019).

On ResNet-18 with output stride 8 (the paper has ResNet-101): 19 classes at 256x256, 12.7 million parameters.
"""

from __future__ import annotations

import torch
from architectures._convolutions import ConvBNReLU
from architectures._resnet import dilated_resnet18
from torch import Tensor, nn
from torch.nn import functional as F

SIZE = (256, 256)


class PositionAttention(nn.Module):
    """Every place attends to every place."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query_conv, self.key_conv = nn.Conv2d(width, width // 8, 1), nn.Conv2d(width, width // 8, 1)
        self.value_conv, self.softmax = nn.Conv2d(width, width, 1), nn.Softmax(dim=-1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        b, c, height, width = x.size()
        query = self.query_conv(x).view(b, -1, width * height).permute(0, 2, 1)
        key = self.key_conv(x).view(b, -1, width * height)
        attention = self.softmax(torch.bmm(query, key))
        value = self.value_conv(x).view(b, -1, width * height)
        out = torch.bmm(value, attention.permute(0, 2, 1)).view(b, c, height, width)
        return self.gamma * out + x


class ChannelAttention(nn.Module):
    """Every channel attends to the channels that differ from it."""

    def __init__(self) -> None:
        super().__init__()
        self.gamma, self.softmax = nn.Parameter(torch.zeros(1)), nn.Softmax(dim=-1)

    def forward(self, x: Tensor) -> Tensor:
        b, c, height, width = x.size()
        query = x.view(b, c, -1)
        energy = torch.bmm(query, x.view(b, c, -1).permute(0, 2, 1))
        difference = torch.max(energy, -1, keepdim=True)[0].expand_as(energy) - energy
        out = torch.bmm(self.softmax(difference), x.view(b, c, -1)).view(b, c, height, width)
        return self.gamma * out + x


class DANet(nn.Module):
    def __init__(self, classes: int = 19) -> None:
        super().__init__()
        self.backbone, width = dilated_resnet18(), 128
        self.conv5a, self.sa, self.conv51 = ConvBNReLU(512, width), PositionAttention(width), ConvBNReLU(width, width)
        self.conv5c, self.sc, self.conv52 = ConvBNReLU(512, width), ChannelAttention(), ConvBNReLU(width, width)
        self.conv8 = nn.Sequential(nn.Dropout2d(0.1, False), nn.Conv2d(width, classes, 1))

    def forward(self, x: Tensor) -> Tensor:
        features = self.backbone(x)
        places = self.conv51(self.sa(self.conv5a(features)))
        channels = self.conv52(self.sc(self.conv5c(features)))
        return F.interpolate(self.conv8(places + channels), x.size()[2:], mode="bilinear", align_corners=True)


def build() -> nn.Module:
    return DANet()
