"""EDANet (Lo et al., "Efficient Dense Modules of Asymmetric Convolution for Real-Time Semantic Segmentation", 2018).

Input 512x512; dense blocks of dilated 3x1 and 1x3 convolutions, growth 40.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIZE = (512, 512)
GROWTH = 40


class DownsamplerBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.grows = inputs < outputs
        self.conv = nn.Conv2d(inputs, outputs - inputs if self.grows else outputs, 3, stride=2, padding=1)
        self.pool = nn.MaxPool2d(2, stride=2)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        output = torch.cat([self.conv(x), self.pool(x)], 1) if self.grows else self.conv(x)
        return F.relu(self.bn(output))


class EDABlock(nn.Module):
    def __init__(self, inputs: int, dilation: int, dropout: float = 0.02) -> None:
        super().__init__()
        k, d = GROWTH, dilation
        self.conv1x1 = nn.Conv2d(inputs, k, 1)
        self.bn0 = nn.BatchNorm2d(k)
        self.conv3x1_1 = nn.Conv2d(k, k, (3, 1), padding=(1, 0))
        self.conv1x3_1 = nn.Conv2d(k, k, (1, 3), padding=(0, 1))
        self.bn1 = nn.BatchNorm2d(k)
        self.conv3x1_2 = nn.Conv2d(k, k, (3, 1), padding=(d, 0), dilation=d)
        self.conv1x3_2 = nn.Conv2d(k, k, (1, 3), padding=(0, d), dilation=d)
        self.bn2 = nn.BatchNorm2d(k)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, x: Tensor) -> Tensor:
        output = F.relu(self.bn0(self.conv1x1(x)))
        output = F.relu(self.bn1(self.conv1x3_1(self.conv3x1_1(output))))
        output = F.relu(self.bn2(self.conv1x3_2(self.conv3x1_2(output))))
        return torch.cat([self.dropout(output), x], 1)


class EDANet(nn.Module):
    def __init__(self, classes: int = 20) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            [
                DownsamplerBlock(3, 15),
                DownsamplerBlock(15, 60),
                *(EDABlock(60 + GROWTH * i, dilation) for i, dilation in enumerate((1, 1, 1, 2, 2))),
                DownsamplerBlock(260, 130),
                *(EDABlock(130 + GROWTH * i, dilation) for i, dilation in enumerate((2, 2, 4, 4, 8, 8, 16, 16))),
            ]
        )
        self.project_layer = nn.Conv2d(450, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return F.interpolate(self.project_layer(x), scale_factor=8, mode="bilinear", align_corners=True)


def build() -> nn.Module:
    return EDANet()
