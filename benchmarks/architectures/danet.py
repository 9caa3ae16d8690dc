"""DANet (Fu et al., "Dual Attention Network for Scene Segmentation", 2019).

On ResNet-18 with output stride 8 (the paper has ResNet-101): 19 classes at 256x256, 12.7 million parameters.
"""

from __future__ import annotations

import torch
from architectures._convolutions import ConvBNReLU
from torch import Tensor, nn
from torch.nn import functional as F

SIZE = (256, 256)


class BasicBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, dilation, dilation, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, dilation, dilation, bias=False)
        self.bn1, self.bn2, self.relu = nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            projection = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += identity
        return self.relu(out)


def resnet18() -> nn.Sequential:
    """ResNet-18 with dilated last stages: output stride 8."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True)]
    layers.append(nn.MaxPool2d(kernel_size=3, stride=2, padding=1))
    inputs = 64
    for outputs, stride, dilation in ((64, 1, 1), (128, 2, 1), (256, 1, 2), (512, 1, 4)):
        layers += [BasicBlock(inputs, outputs, stride, dilation), BasicBlock(outputs, outputs, 1, dilation)]
        inputs = outputs
    return nn.Sequential(*layers)


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
        self.backbone, width = resnet18(), 128
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
