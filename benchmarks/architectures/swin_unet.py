"""Swin-Unet (Cao et al., "Swin-Unet: Unet-like Pure Transformer for Medical Image Segmentation", 2021).

Swin-Tiny blocks (two in every stage) in an encoder and a decoder, patch merging and patch expanding: 9 classes at
224x224, 27 million parameters.
"""

from __future__ import annotations

import torch
from architectures._windows import WindowAttention, shift_mask, window_partition, window_reverse
from torch import Tensor, nn

SIZE = (224, 224)
WINDOW = 7


class Block(nn.Module):
    def __init__(self, dim: int, heads: int, side: int, shift: int) -> None:
        super().__init__()
        self.side, self.shift = side, shift
        self.norm1, self.attn, self.norm2 = nn.LayerNorm(dim), WindowAttention(dim, heads, WINDOW), nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, dim * 4), nn.GELU(), nn.Linear(dim * 4, dim))
        self.register_buffer("attn_mask", shift_mask(side, side, WINDOW, shift) if shift else None)

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        shortcut, x = x, self.norm1(x).view(b, self.side, self.side, c)
        if self.shift:
            x = torch.roll(x, shifts=(-self.shift, -self.shift), dims=(1, 2))
        windows = self.attn(window_partition(x, WINDOW).view(-1, WINDOW * WINDOW, c), self.attn_mask)
        x = window_reverse(windows.view(-1, WINDOW, WINDOW, c), WINDOW, self.side, self.side)
        if self.shift:
            x = torch.roll(x, shifts=(self.shift, self.shift), dims=(1, 2))
        x = shortcut + x.view(b, n, c)
        return x + self.mlp(self.norm2(x))


def blocks(dim: int, heads: int, side: int) -> nn.Sequential:
    """A block with plain windows and one with shifted windows, if there is more than one window."""
    return nn.Sequential(Block(dim, heads, side, 0), Block(dim, heads, side, WINDOW // 2 if side > WINDOW else 0))


class PatchMerging(nn.Module):
    def __init__(self, dim: int, side: int) -> None:
        super().__init__()
        self.side, self.reduction, self.norm = side, nn.Linear(4 * dim, 2 * dim, bias=False), nn.LayerNorm(4 * dim)

    def forward(self, x: Tensor) -> Tensor:
        b, _, c = x.shape
        x = x.view(b, self.side, self.side, c)
        x = torch.cat([x[:, 0::2, 0::2, :], x[:, 1::2, 0::2, :], x[:, 0::2, 1::2, :], x[:, 1::2, 1::2, :]], -1)
        return self.reduction(self.norm(x.view(b, -1, 4 * c)))


class PatchExpand(nn.Module):
    """Every token becomes `scale` x `scale` tokens."""

    def __init__(self, dim: int, out: int, side: int, scale: int) -> None:
        super().__init__()
        self.side, self.scale, self.out = side, scale, out
        self.expand, self.norm = nn.Linear(dim, out * scale**2, bias=False), nn.LayerNorm(out)

    def forward(self, x: Tensor) -> Tensor:
        b, side, scale = x.shape[0], self.side, self.scale
        x = self.expand(x).view(b, side, side, scale, scale, self.out)
        x = x.permute(0, 1, 3, 2, 4, 5).reshape(b, side * scale * side * scale, self.out)
        return self.norm(x)


class SwinUnet(nn.Module):
    def __init__(self, classes: int = 9, dim: int = 96) -> None:
        super().__init__()
        side = SIZE[0] // 4
        self.patch_embed, self.patch_norm = nn.Conv2d(3, dim, 4, 4), nn.LayerNorm(dim)
        shapes = [(dim * 2**level, 3 * 2**level, side // 2**level) for level in range(4)]
        self.layers = nn.ModuleList(blocks(*shape) for shape in shapes)
        self.merges = nn.ModuleList(PatchMerging(width, length) for width, _, length in shapes[:3])
        self.norm, self.norm_up = nn.LayerNorm(dim * 8), nn.LayerNorm(dim)
        self.layers_up = nn.ModuleList(blocks(*shape) for shape in shapes[2::-1])
        self.expands = nn.ModuleList(PatchExpand(width, width // 2, length, 2) for width, _, length in shapes[:0:-1])
        self.concat_back = nn.ModuleList(nn.Linear(2 * width, width) for width, _, _ in shapes[2::-1])
        self.up, self.output = PatchExpand(dim, dim, side, 4), nn.Conv2d(dim, classes, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        b, _, height, width = x.shape
        x, skips = self.patch_norm(self.patch_embed(x).flatten(2).transpose(1, 2)), []
        for layer, merge in zip(self.layers, self.merges, strict=False):
            skips.append(x)
            x = merge(layer(x))
        x = self.norm(self.layers[-1](x))
        for layer, expand, linear in zip(self.layers_up, self.expands, self.concat_back, strict=True):
            x = layer(linear(torch.cat([expand(x), skips.pop()], -1)))
        x = self.up(self.norm_up(x)).view(b, height, width, -1)
        return self.output(x.permute(0, 3, 1, 2))


def build() -> nn.Module:
    return SwinUnet()
