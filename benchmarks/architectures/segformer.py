"""SegFormer (Xie et al., "SegFormer: Simple and Efficient Design for Semantic Segmentation with Transformers", 2021).

The variant B0 with 19 classes at 512x512: 3.7 million parameters.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SIZE = (512, 512)


class PatchEmbedding(nn.Module):
    """Overlapping patches become tokens."""

    def __init__(self, inputs: int, width: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(inputs, width, kernel, stride, kernel // 2)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> tuple[Tensor, int, int]:
        x = self.proj(x)
        _, _, height, width = x.shape
        return self.norm(x.flatten(2).transpose(1, 2)), height, width


class Attention(nn.Module):
    """Self-attention whose keys and values are read from a smaller map."""

    def __init__(self, width: int, heads: int, reduction: int) -> None:
        super().__init__()
        self.heads, self.scale, self.reduction = heads, (width // heads) ** -0.5, reduction
        self.q, self.kv, self.proj = nn.Linear(width, width), nn.Linear(width, width * 2), nn.Linear(width, width)
        if reduction > 1:
            self.sr = nn.Conv2d(width, width, reduction, reduction)
            self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        b, n, c = x.shape
        q = self.q(x).reshape(b, n, self.heads, c // self.heads).permute(0, 2, 1, 3)
        if self.reduction > 1:
            x = self.sr(x.permute(0, 2, 1).reshape(b, c, height, width))
            x = self.norm(x.reshape(b, c, -1).permute(0, 2, 1))
        k, v = self.kv(x).reshape(b, -1, 2, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-2, -1) * self.scale).softmax(dim=-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(b, n, c))


class MixFFN(nn.Module):
    """Feed-forward layers with a depthwise convolution between them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, width * 4), nn.Linear(width * 4, width)
        self.dwconv = nn.Conv2d(width * 4, width * 4, 3, 1, 1, groups=width * 4)

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        x = self.fc1(x)
        b, _, c = x.shape
        x = self.dwconv(x.transpose(1, 2).view(b, c, height, width)).flatten(2).transpose(1, 2)
        return self.fc2(F.gelu(x))


class Block(nn.Module):
    def __init__(self, width: int, heads: int, reduction: int) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width), Attention(width, heads, reduction)
        self.norm2, self.mlp = nn.LayerNorm(width), MixFFN(width)

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        x = x + self.attn(self.norm1(x), height, width)
        return x + self.mlp(self.norm2(x), height, width)


class Stage(nn.Module):
    def __init__(
        self, inputs: int, width: int, heads: int, reduction: int, depth: int, kernel: int, stride: int
    ) -> None:
        super().__init__()
        self.patch_embed = PatchEmbedding(inputs, width, kernel, stride)
        self.blocks = nn.ModuleList(Block(width, heads, reduction) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        x, height, width = self.patch_embed(x)
        for block in self.blocks:
            x = block(x, height, width)
        return self.norm(x).reshape(x.shape[0], height, width, -1).permute(0, 3, 1, 2).contiguous()


class Head(nn.Module):
    """Every stage is projected to the same width and enlarged to the first stage's size."""

    def __init__(self, widths: list[int], width: int, classes: int) -> None:
        super().__init__()
        self.linears = nn.ModuleList(nn.Linear(each, width) for each in widths)
        self.fuse = nn.Sequential(nn.Conv2d(width * 4, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.dropout, self.classifier = nn.Dropout2d(0.1), nn.Conv2d(width, classes, 1)

    def forward(self, maps: list[Tensor]) -> Tensor:
        size, found = maps[0].shape[2:], []
        for linear, x in zip(self.linears, maps, strict=True):
            projected = linear(x.flatten(2).transpose(1, 2)).permute(0, 2, 1).reshape(x.shape[0], -1, *x.shape[2:])
            found.append(F.interpolate(projected, size=size, mode="bilinear", align_corners=False))
        return self.classifier(self.dropout(self.fuse(torch.cat(found[::-1], dim=1))))


class SegFormer(nn.Module):
    def __init__(self, classes: int = 19) -> None:
        super().__init__()
        widths = [32, 64, 160, 256]
        self.stages = nn.ModuleList(
            [
                Stage(3, widths[0], 1, 8, 2, 7, 4),
                Stage(widths[0], widths[1], 2, 4, 2, 3, 2),
                Stage(widths[1], widths[2], 5, 2, 2, 3, 2),
                Stage(widths[2], widths[3], 8, 1, 2, 3, 2),
            ]
        )
        self.head = Head(widths, 256, classes)

    def forward(self, x: Tensor) -> Tensor:
        size, maps = x.shape[2:], []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return F.interpolate(self.head(maps), size=size, mode="bilinear", align_corners=False)


def build() -> nn.Module:
    return SegFormer()
