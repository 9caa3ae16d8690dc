"""EncNet (Zhang et al., "Context Encoding for Semantic Segmentation", 2018).

On ResNet-18 with output stride 8 (the paper has ResNet-50 and 101), 32 codewords; the side loss is left out: 19
classes at 256x256, 12.1 million parameters.
"""

from __future__ import annotations

import torch
from architectures._convolutions import ConvBNReLU
from architectures._resnet import dilated_resnet18
from torch import Tensor, nn
from torch.nn import functional as F

SIZE = (256, 256)


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
        self.backbone, self.bottleneck = dilated_resnet18(), ConvBNReLU(512, width)
        self.enc_module, self.lateral = EncModule(width, 32), ConvBNReLU(128, width, 1)
        self.fusion, self.conv_seg = ConvBNReLU(2 * width, width), nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        middle = self.backbone[:8](x)  # the end of the second stage
        features = self.bottleneck(self.backbone[8:](middle))
        fused = self.fusion(torch.cat([features, self.lateral(middle)], 1))
        logits = self.conv_seg(self.enc_module(fused))
        return F.interpolate(logits, size=x.shape[2:], mode="bilinear", align_corners=False)


def build() -> nn.Module:
    return EncNet()
