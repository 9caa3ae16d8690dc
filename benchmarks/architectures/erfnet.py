"""ERFNet (Romera et al., "ERFNet: Efficient Residual Factorized ConvNet for Real-time Semantic Segmentation", 2017).

Input 256x256; 20 classes, as published.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIZE = (256, 256)


class DownsamplerBlock(nn.Module):
    """A strided convolution beside a max pool."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs - inputs, (3, 3), stride=2, padding=1, bias=True)
        self.pool = nn.MaxPool2d(2, stride=2)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        output = torch.cat([self.conv(x), self.pool(x)], 1)
        return F.relu(self.bn(output))


class NonBottleneck1d(nn.Module):
    """Two 3x3 convolutions, each factorised into 3x1 and 1x3; the second pair is dilated."""

    def __init__(self, channels: int, dropout: float, dilation: int) -> None:
        super().__init__()
        d = dilation
        self.conv3x1_1 = nn.Conv2d(channels, channels, (3, 1), stride=1, padding=(1, 0), bias=True)
        self.conv1x3_1 = nn.Conv2d(channels, channels, (1, 3), stride=1, padding=(0, 1), bias=True)
        self.bn1 = nn.BatchNorm2d(channels, eps=1e-3)
        self.conv3x1_2 = nn.Conv2d(channels, channels, (3, 1), padding=(d, 0), bias=True, dilation=(d, 1))
        self.conv1x3_2 = nn.Conv2d(channels, channels, (1, 3), padding=(0, d), bias=True, dilation=(1, d))
        self.bn2 = nn.BatchNorm2d(channels, eps=1e-3)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, x: Tensor) -> Tensor:
        output = F.relu(self.conv3x1_1(x))
        output = F.relu(self.bn1(self.conv1x3_1(output)))
        output = F.relu(self.conv3x1_2(output))
        output = self.bn2(self.conv1x3_2(output))
        if self.dropout.p != 0:
            output = self.dropout(output)
        return F.relu(output + x)


class UpsamplerBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(inputs, outputs, 3, stride=2, padding=1, output_padding=1, bias=True)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


def build(classes: int = 20) -> nn.Module:
    encoder = [
        DownsamplerBlock(3, 16),
        DownsamplerBlock(16, 64),
        *(NonBottleneck1d(64, 0.03, 1) for _ in range(5)),
        DownsamplerBlock(64, 128),
        *(NonBottleneck1d(128, 0.3, dilation) for _ in range(2) for dilation in (2, 4, 8, 16)),
    ]
    decoder = [
        UpsamplerBlock(128, 64),
        *(NonBottleneck1d(64, 0, 1) for _ in range(2)),
        UpsamplerBlock(64, 16),
        *(NonBottleneck1d(16, 0, 1) for _ in range(2)),
        nn.ConvTranspose2d(16, classes, 2, stride=2, padding=0, output_padding=0, bias=True),
    ]
    return nn.Sequential(*encoder, *decoder)
