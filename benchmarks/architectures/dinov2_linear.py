"""DINOv2 (Oquab et al., "DINOv2: Learning Robust Visual Features without Supervision", 2023) with a linear head.

ViT-S/14 as it was trained at 518x518, used at 224x224: its 37x37 position table is interpolated to 16x16. 21 classes;
22 million parameters.
"""

from __future__ import annotations

import math

import torch
from architectures._encoder_decoder import EncoderDecoder
from architectures._vit import ScaledBlock
from torch import Tensor, nn
from torch.nn import functional as F

SIZE = (224, 224)


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (width // heads) ** -0.5
        self.qkv, self.proj = nn.Linear(width, width * 3), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv[0] * self.scale, qkv[1], qkv[2]
        weights = (q @ k.transpose(-2, -1)).softmax(dim=-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(b, n, c))


class VisionTransformer(nn.Module):
    def __init__(self, width: int = 384, depth: int = 12, heads: int = 6, patch: int = 14, side: int = 518) -> None:
        super().__init__()
        self.patch = patch
        self.patch_embed = nn.Conv2d(3, width, patch, patch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + (side // patch) ** 2, width))
        self.blocks = nn.ModuleList(ScaledBlock(width, Attention(width, heads), 1.0, eps=1e-6) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def positions(self, rows: int, columns: int) -> Tensor:
        """The position table at the image's number of patches; the class token's position stays."""
        count, width = self.pos_embed.shape[1] - 1, self.pos_embed.shape[2]
        side = int(math.sqrt(count))
        table = self.pos_embed[:, 1:].reshape(1, side, side, width).permute(0, 3, 1, 2)
        offset = 0.1  # DINOv2 avoids a floating-point error of the size this way
        scale = ((rows + offset) / side, (columns + offset) / side)
        table = F.interpolate(table, scale_factor=scale, mode="bicubic")
        table = table.permute(0, 2, 3, 1).view(1, -1, width)
        return torch.cat((self.pos_embed[:, :1], table), dim=1)

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = x.shape[2] // self.patch, x.shape[3] // self.patch
        x = self.patch_embed(x).flatten(2).transpose(1, 2)
        x = torch.cat((self.cls_token.expand(x.shape[0], -1, -1), x), dim=1) + self.positions(rows, columns)
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)[:, 1:]
        return x.reshape(x.shape[0], rows, columns, -1).permute(0, 3, 1, 2).contiguous()


class LinearHead(nn.Module):
    """Batch normalisation and one linear layer, as in the paper's linear evaluation."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.bn, self.conv_seg = nn.BatchNorm2d(width), nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_seg(self.bn(x))


def build() -> nn.Module:
    return EncoderDecoder(VisionTransformer(), LinearHead(384, 21))
