"""DINOv3 (Siméoni et al., "DINOv3", 2025) with a linear head.

ViT-S/16 with four register tokens and rotary positions: 150 classes at 256x256, 21.7 million parameters.
"""

from __future__ import annotations

import math

import torch
from architectures._vit import LayerScale, feed_forward
from torch import Tensor, nn
from torch.nn import functional as F

SIZE = (256, 256)
PATCH, REGISTERS = 16, 4


class LinearKMaskedBias(nn.Linear):
    """Queries and values have a bias, keys have none."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        mask = torch.ones(outputs)
        mask[outputs // 3 : 2 * outputs // 3] = 0
        self.register_buffer("bias_mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias * self.bias_mask.to(self.bias.dtype))


class RotaryPosition(nn.Module):
    """Sines and cosines of the places of all patches, for one head."""

    def __init__(self, head: int, base: float = 100.0) -> None:
        super().__init__()
        self.register_buffer("periods", base ** (2 * torch.arange(head // 4) / (head // 2)))

    def forward(self, height: int, width: int) -> tuple[Tensor, Tensor]:
        coords_h = torch.arange(0.5, height, device=self.periods.device) / height
        coords_w = torch.arange(0.5, width, device=self.periods.device) / width
        coords = torch.stack(torch.meshgrid(coords_h, coords_w, indexing="ij"), dim=-1).flatten(0, 1)
        angles = 2 * math.pi * (2.0 * coords - 1.0)[:, :, None] / self.periods[None, None, :]
        angles = angles.flatten(1, 2).tile(2)
        return torch.sin(angles), torch.cos(angles)


def rotated(x: Tensor, sin: Tensor, cos: Tensor) -> Tensor:
    """Rotates the channels of the patches; class and register tokens stay."""
    count = x.shape[-2] - sin.shape[-2]
    prefix, patches = x[:, :, :count, :], x[:, :, count:, :]
    first, second = patches.chunk(2, dim=-1)
    patches = patches * cos + torch.cat([-second, first], dim=-1) * sin
    return torch.cat((prefix, patches), dim=-2)


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.num_heads, self.qkv, self.proj = heads, LinearKMaskedBias(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
        b, n, c = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.num_heads, c // self.num_heads)
        q, k, v = torch.unbind(qkv, 2)
        q, k, v = (t.transpose(1, 2) for t in (q, k, v))
        q, k = rotated(q, *rope), rotated(k, *rope)
        x = torch.nn.functional.scaled_dot_product_attention(q, k, v)
        return self.proj(x.transpose(1, 2).reshape(b, n, c))


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.attn, self.ls1 = nn.LayerNorm(width), Attention(width, heads), LayerScale(width, 1e-5)
        self.norm2, self.ls2 = nn.LayerNorm(width), LayerScale(width, 1e-5)
        self.mlp = feed_forward(width)

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x), rope))
        return x + self.ls2(self.mlp(self.norm2(x)))


class VisionTransformer(nn.Module):
    def __init__(self, width: int = 384, depth: int = 12, heads: int = 6) -> None:
        super().__init__()
        self.patch_embed, self.rope_embed = nn.Conv2d(3, width, PATCH, PATCH), RotaryPosition(width // heads)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.storage_tokens = nn.Parameter(torch.zeros(1, REGISTERS, width))
        self.blocks, self.norm = nn.ModuleList(Block(width, heads) for _ in range(depth)), nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x).permute(0, 2, 3, 1)
        b, height, width, c = x.shape
        x = x.flatten(1, 2)
        tokens = self.cls_token.expand(b, -1, -1), self.storage_tokens.expand(b, -1, -1)
        x, rope = torch.cat([*tokens, x], dim=1), self.rope_embed(height, width)
        for block in self.blocks:
            x = block(x, rope)
        x = self.norm(x)[:, REGISTERS + 1 :]
        return x.reshape(b, height, width, c).permute(0, 3, 1, 2).contiguous()


class DINOv3Linear(nn.Module):
    def __init__(self, classes: int = 150, width: int = 384) -> None:
        super().__init__()
        self.backbone, self.dropout = VisionTransformer(width), nn.Dropout2d(0.1)
        self.batchnorm_layer, self.conv = nn.BatchNorm2d(width), nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        logits = self.conv(self.batchnorm_layer(self.dropout(self.backbone(x))))
        return F.interpolate(logits, size=x.shape[2:], mode="bilinear", align_corners=False)


def build() -> nn.Module:
    return DINOv3Linear()
