"""EncNet (Zhang et al., "Context Encoding for Semantic Segmentation", 2018).

On ResNet-18 with output stride 8 (the paper has ResNet-50 and 101), 32 codewords; the side loss is left out: 19
classes at 256x256, 12.1 million parameters.
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


class Encoding(nn.Module):
    """Residuals of all places to learned codewords, weighted by their distance and summed."""

    def __init__(self, channels: int, codes: int) -> None:
        super().__init__()
        self.codewords = nn.Parameter(torch.empty(codes, channels).uniform_(-0.1, 0.1))
        self.scale = nn.Parameter(torch.empty(codes).uniform_(-1, 0))

    @staticmethod
    def scaled_l2(x: Tensor, codewords: Tensor, scale: Tensor) -> Tensor:
        num_codes, channels = codewords.size()
        expanded_x = x.unsqueeze(2).expand((x.size(0), x.size(1), num_codes, channels))
        difference = expanded_x - codewords.view((1, 1, num_codes, channels))
        return scale.view((1, 1, num_codes)) * difference.pow(2).sum(dim=3)

    @staticmethod
    def aggregate(weights: Tensor, x: Tensor, codewords: Tensor) -> Tensor:
        num_codes, channels = codewords.size()
        expanded_x = x.unsqueeze(2).expand((x.size(0), x.size(1), num_codes, channels))
        return (weights.unsqueeze(3) * (expanded_x - codewords.view((1, 1, num_codes, channels)))).sum(dim=1)

    def forward(self, x: Tensor) -> Tensor:
        x = x.view(x.size(0), x.size(1), -1).transpose(1, 2).contiguous()
        weights = F.softmax(self.scaled_l2(x, self.codewords, self.scale), dim=2)
        return self.aggregate(weights, x, self.codewords)


class EncModule(nn.Module):
    """The encoding gates the map's channels."""

    def __init__(self, channels: int, codes: int) -> None:
        super().__init__()
        self.encoding_project = nn.Sequential(
            nn.Conv2d(channels, channels, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(inplace=True)
        )
        self.encoding = nn.Sequential(Encoding(channels, codes), nn.BatchNorm1d(codes), nn.ReLU(inplace=True))
        self.fc = nn.Sequential(nn.Linear(channels, channels), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        feat = self.encoding(self.encoding_project(x)).mean(dim=1)
        batch_size, channels, _, _ = x.size()
        y = self.fc(feat).view(batch_size, channels, 1, 1)
        return F.relu_(x + x * y)


class EncNet(nn.Module):
    def __init__(self, classes: int = 19, width: int = 128) -> None:
        super().__init__()
        self.backbone, self.bottleneck, self.enc_module = resnet18(), ConvBNReLU(512, width), EncModule(width, 32)
        self.lateral = nn.Sequential(nn.Conv2d(128, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True))
        self.fusion, self.conv_seg = ConvBNReLU(2 * width, width), nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        middle = self.backbone[:8](x)  # the end of the second stage
        features = self.bottleneck(self.backbone[8:](middle))
        fused = self.fusion(torch.cat([features, self.lateral(middle)], 1))
        logits = self.conv_seg(self.enc_module(fused))
        return F.interpolate(logits, size=x.shape[2:], mode="bilinear", align_corners=False)


def build() -> nn.Module:
    return EncNet()
