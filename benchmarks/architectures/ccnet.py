"""CCNet (Huang et al., "CCNet: Criss-Cross Attention for Semantic Segmentation", 2019), two recurrences.

On ResNet-18 with output stride 8 (the paper has ResNet-101): 19 classes at 256x256, 12.7 million parameters.
"""

from __future__ import annotations

import torch
from architectures._convolutions import ConvBNReLU
from architectures._resnet import dilated_resnet18
from torch import Tensor, nn
from torch.nn import functional as F

SIZE = (256, 256)


def infinity(b: int, height: int, width: int) -> Tensor:
    """−∞ where a place would meet itself a second time."""
    return -torch.diag(torch.tensor(float("inf")).repeat(height), 0).unsqueeze(0).repeat(b * width, 1, 1)


class CrissCrossAttention(nn.Module):
    """Every place attends to the places of its row and column."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query_conv, self.key_conv = nn.Conv2d(width, width // 8, 1), nn.Conv2d(width, width // 8, 1)
        self.value_conv, self.softmax = nn.Conv2d(width, width, 1), nn.Softmax(dim=3)
        self.gamma = nn.Parameter(torch.zeros(1))

    @staticmethod
    def _columns(x: Tensor) -> Tensor:
        b, _, height, width = x.size()
        return x.permute(0, 3, 1, 2).contiguous().view(b * width, -1, height)

    @staticmethod
    def _rows(x: Tensor) -> Tensor:
        b, _, height, width = x.size()
        return x.permute(0, 2, 1, 3).contiguous().view(b * height, -1, width)

    def forward(self, x: Tensor) -> Tensor:
        b, _, height, width = x.size()
        query, key, value = self.query_conv(x), self.key_conv(x), self.value_conv(x)
        energy_h = torch.bmm(self._columns(query).permute(0, 2, 1), self._columns(key)) + infinity(b, height, width)
        energy_h = energy_h.view(b, width, height, height).permute(0, 2, 1, 3)
        energy_w = torch.bmm(self._rows(query).permute(0, 2, 1), self._rows(key)).view(b, height, width, width)
        attention = self.softmax(torch.cat([energy_h, energy_w], 3))
        att_h = attention[:, :, :, 0:height].permute(0, 2, 1, 3).contiguous().view(b * width, height, height)
        att_w = attention[:, :, :, height : height + width].contiguous().view(b * height, width, width)
        out_h = torch.bmm(self._columns(value), att_h.permute(0, 2, 1)).view(b, width, -1, height)
        out_w = torch.bmm(self._rows(value), att_w.permute(0, 2, 1)).view(b, height, -1, width)
        return self.gamma * (out_h.permute(0, 2, 3, 1) + out_w.permute(0, 2, 1, 3)) + x


class CCNet(nn.Module):
    def __init__(self, classes: int = 19, recurrence: int = 2) -> None:
        super().__init__()
        self.backbone, self.recurrence = dilated_resnet18(), recurrence
        self.conva, self.cca, self.convb = ConvBNReLU(512, 128), CrissCrossAttention(128), ConvBNReLU(128, 128)
        self.bottleneck = nn.Sequential(ConvBNReLU(512 + 128, 128), nn.Dropout2d(0.1), nn.Conv2d(128, classes, 1))

    def forward(self, x: Tensor) -> Tensor:
        features = self.backbone(x)
        output = self.conva(features)
        for _ in range(self.recurrence):
            output = self.cca(output)
        output = self.bottleneck(torch.cat([features, self.convb(output)], 1))
        return F.interpolate(output, size=x.shape[2:], mode="bilinear", align_corners=True)


def build() -> nn.Module:
    return CCNet()
