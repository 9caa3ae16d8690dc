"""Swin-Unet (Cao et al., "Swin-Unet: Unet-like Pure Transformer for Medical Image Segmentation", 2021).

Swin-Tiny blocks (two in every stage) in an encoder and a decoder, patch merging and patch expanding: 9 classes at
224x224, 27 million parameters.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

SIZE = (224, 224)
WINDOW = 7


def window_partition(x: Tensor) -> Tensor:
    b, height, width, c = x.shape
    x = x.view(b, height // WINDOW, WINDOW, width // WINDOW, WINDOW, c)
    return x.permute(0, 1, 3, 2, 4, 5).contiguous().view(-1, WINDOW, WINDOW, c)


def window_reverse(windows: Tensor, height: int, width: int) -> Tensor:
    b = int(windows.shape[0] / (height * width / WINDOW / WINDOW))
    x = windows.view(b, height // WINDOW, width // WINDOW, WINDOW, WINDOW, -1)
    return x.permute(0, 1, 3, 2, 4, 5).contiguous().view(b, height, width, -1)


class WindowAttention(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.num_heads, self.scale = heads, (dim // heads) ** -0.5
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * WINDOW - 1) ** 2, heads))
        coords = torch.stack(torch.meshgrid([torch.arange(WINDOW)] * 2, indexing="ij")).flatten(1)
        relative = (coords[:, :, None] - coords[:, None, :]).permute(1, 2, 0).contiguous() + WINDOW - 1
        index = relative[:, :, 0] * (2 * WINDOW - 1) + relative[:, :, 1]
        self.register_buffer("relative_position_index", index)
        self.qkv, self.proj, self.softmax = nn.Linear(dim, dim * 3), nn.Linear(dim, dim), nn.Softmax(dim=-1)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        b, n, c = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.num_heads, c // self.num_heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv[0], qkv[1], qkv[2]
        attention = (q * self.scale) @ k.transpose(-2, -1)
        bias = self.relative_position_bias_table[self.relative_position_index.view(-1)].view(n, n, -1)
        attention = attention + bias.permute(2, 0, 1).contiguous().unsqueeze(0)
        if mask is not None:
            windows = mask.shape[0]
            attention = attention.view(b // windows, windows, self.num_heads, n, n) + mask.unsqueeze(1).unsqueeze(0)
            attention = attention.view(-1, self.num_heads, n, n)
        return self.proj((self.softmax(attention) @ v).transpose(1, 2).reshape(b, n, c))


class Block(nn.Module):
    def __init__(self, dim: int, heads: int, side: int, shift: int) -> None:
        super().__init__()
        self.side, self.shift = side, shift
        self.norm1, self.attn, self.norm2 = nn.LayerNorm(dim), WindowAttention(dim, heads), nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, dim * 4), nn.GELU(), nn.Linear(dim * 4, dim))
        self.register_buffer("attn_mask", self._mask() if shift else None)

    def _mask(self) -> Tensor:
        regions, count = torch.zeros((1, self.side, self.side, 1)), 0
        slices = (slice(0, -WINDOW), slice(-WINDOW, -self.shift), slice(-self.shift, None))
        for rows in slices:
            for columns in slices:
                regions[:, rows, columns, :] = count
                count += 1
        windows = window_partition(regions).view(-1, WINDOW * WINDOW)
        mask = windows.unsqueeze(1) - windows.unsqueeze(2)
        return mask.masked_fill(mask != 0, -100.0).masked_fill(mask == 0, 0.0)

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        shortcut, x = x, self.norm1(x).view(b, self.side, self.side, c)
        if self.shift:
            x = torch.roll(x, shifts=(-self.shift, -self.shift), dims=(1, 2))
        windows = self.attn(window_partition(x).view(-1, WINDOW * WINDOW, c), self.attn_mask)
        x = window_reverse(windows.view(-1, WINDOW, WINDOW, c), self.side, self.side)
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
