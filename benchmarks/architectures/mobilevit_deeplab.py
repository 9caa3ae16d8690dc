"""MobileViT-S (Mehta, Rastegari, "MobileViT: Light-weight, General-purpose, and Mobile-friendly Vision Transformer",
2021) with DeepLabV3 (Chen et al., 2017), as the paper segments PASCAL VOC: 21 classes at 512x512, output stride 16,
6.4 million parameters.
"""

from __future__ import annotations

import math

import torch
from architectures._mobilevit import ASPP, InvertedResidual, conv
from torch import Tensor, nn
from torch.nn import functional as F

SIZE = (512, 512)


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.heads, self.scaling = heads, (width // heads) ** -0.5

    def forward(self, x: Tensor) -> Tensor:
        batch, patches, _ = x.shape
        qkv = self.qkv(x).reshape(batch, patches, 3, self.heads, -1).transpose(1, 3).contiguous()
        query, key, value = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]
        weights = torch.matmul(query * self.scaling, key.transpose(-1, -2)).softmax(-1)
        return self.out(torch.matmul(weights, value).transpose(1, 2).reshape(batch, patches, -1))


class Encoder(nn.Module):
    def __init__(self, width: int, heads: int = 4) -> None:
        super().__init__()
        self.attention = nn.Sequential(nn.LayerNorm(width), Attention(width, heads), nn.Dropout(0.1))
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width), nn.Dropout(0.1)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(x)
        return x + self.feed_forward(x)


class MobileViTBlock(nn.Module):
    """Attention among the pixels that have the same place in their 2x2 patch."""

    def __init__(self, inputs: int, width: int, depth: int, dilation: int = 1, patch: int = 2) -> None:
        super().__init__()
        self.local = nn.Sequential(conv(inputs, inputs, 3, dilation=dilation), nn.Conv2d(inputs, width, 1, bias=False))
        self.transformer = nn.Sequential(*(Encoder(width) for _ in range(depth)), nn.LayerNorm(width))
        self.project, self.fusion = conv(width, inputs), conv(2 * inputs, inputs, 3)
        self.patch = patch

    def unfold(self, x: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        side = self.patch
        batch, channels, height, width = x.shape
        high, wide = math.ceil(height / side) * side, math.ceil(width / side) * side
        if (high, wide) != (height, width):
            x = F.interpolate(x, size=(high, wide), mode="bilinear", align_corners=False)
        rows, columns = high // side, wide // side
        x = x.reshape(batch * channels * rows, side, columns, side).transpose(1, 2)
        x = x.reshape(batch, channels, rows * columns, side * side).transpose(1, 3)
        return x.reshape(batch * side * side, rows * columns, -1), (batch, channels, rows, columns, height, width)

    def fold(self, x: Tensor, sizes: tuple[int, ...]) -> Tensor:
        side = self.patch
        batch, channels, rows, columns, height, width = sizes
        x = x.contiguous().view(batch, side * side, rows * columns, -1).transpose(1, 3)
        x = x.reshape(batch * channels * rows, columns, side, side).transpose(1, 2)
        x = x.reshape(batch, channels, rows * side, columns * side)
        if (rows * side, columns * side) != (height, width):
            x = F.interpolate(x, size=(height, width), mode="bilinear", align_corners=False)
        return x

    def forward(self, x: Tensor) -> Tensor:
        patches, sizes = self.unfold(self.local(x))
        return self.fusion(torch.cat((x, self.project(self.fold(self.transformer(patches), sizes))), dim=1))


class MobileViTDeepLab(nn.Module):
    def __init__(self, classes: int = 21) -> None:
        super().__init__()
        self.backbone = nn.Sequential(
            conv(3, 16, 3, 2),
            InvertedResidual(16, 32, 4),
            InvertedResidual(32, 64, 4, 2),
            InvertedResidual(64, 64, 4),
            InvertedResidual(64, 64, 4),
            InvertedResidual(64, 96, 4, 2),
            MobileViTBlock(96, 144, 2),
            InvertedResidual(96, 128, 4, 2),
            MobileViTBlock(128, 192, 4),
            InvertedResidual(128, 160, 4),
            MobileViTBlock(160, 240, 3, dilation=2),
        )
        self.aspp = nn.Sequential(ASPP(160, 256, (6, 12, 18)), nn.Dropout(0.1))
        self.classifier = nn.Conv2d(256, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        logits = self.classifier(self.aspp(self.backbone(x)))
        return F.interpolate(logits, size=x.shape[-2:], mode="bilinear", align_corners=False)


def build() -> nn.Module:
    return MobileViTDeepLab()
