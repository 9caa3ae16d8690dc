"""Segmenter (Strudel et al., "Segmenter: Transformer for Semantic Segmentation", 2021) with its linear decoder.

ViT-Tiny/16 with 150 classes at 512x512: 5.7 million parameters.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SIZE = (512, 512)


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (width // heads) ** -0.5
        self.qkv, self.proj, self.drop = nn.Linear(width, width * 3), nn.Linear(width, width), nn.Dropout(0.0)

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv[0], qkv[1], qkv[2]
        attention = self.drop(((q @ k.transpose(-2, -1)) * self.scale).softmax(dim=-1))
        return self.drop(self.proj((attention @ v).transpose(1, 2).reshape(b, n, c)))


class FeedForward(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.act, self.fc2 = nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width)
        self.drop = nn.Dropout(0.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.fc2(self.drop(self.act(self.fc1(x)))))


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width), Attention(width, heads)
        self.norm2, self.mlp = nn.LayerNorm(width), FeedForward(width, 4 * width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class VisionTransformer(nn.Module):
    def __init__(self, size: tuple[int, int], patch: int, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch, patch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, (size[0] // patch) * (size[1] // patch) + 1, width))
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.proj(x).flatten(2).transpose(1, 2)
        x = torch.cat((self.cls_token.expand(x.shape[0], -1, -1), x), dim=1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


class Segmenter(nn.Module):
    def __init__(self, classes: int = 150, patch: int = 16, width: int = 192) -> None:
        super().__init__()
        self.encoder, self.patch = VisionTransformer(SIZE, patch, width, depth=12, heads=3), patch
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        tokens = self.head(self.encoder(x)[:, 1:])  # without the class token
        batch, _, classes = tokens.shape
        masks = tokens.view(batch, height // self.patch, width // self.patch, classes).permute(0, 3, 1, 2)
        return F.interpolate(masks, size=(height, width), mode="bilinear")


def build() -> nn.Module:
    return Segmenter()
