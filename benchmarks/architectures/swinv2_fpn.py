"""Swin Transformer V2 (Liu et al., "Swin Transformer V2: Scaling Up Capacity and Resolution", 2022) with Semantic FPN
(Kirillov et al., "Panoptic Feature Pyramid Networks", 2019).

The variant Tiny with 150 classes at 256x256, windows of 8x8: 32 million parameters, 27.6 million of them in the
backbone. Attention compares directions (cosines), and a small network computes the bias of every relative position.
"""

from __future__ import annotations

import math

import torch
from architectures._encoder_decoder import EncoderDecoder
from architectures._fpn import SemanticFPN
from architectures._windows import relative_position_index, shift_mask, window_partition, window_reverse
from torch import Tensor, nn
from torch.nn import functional as F

SIZE = (256, 256)
WIDTHS, DEPTHS, HEADS, WINDOW = (96, 192, 384, 768), (2, 2, 6, 2), (3, 6, 12, 24), 8


class WindowAttention(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.num_heads = heads
        self.logit_scale = nn.Parameter(torch.log(10 * torch.ones((heads, 1, 1))))
        self.cpb_mlp = nn.Sequential(
            nn.Linear(2, 512, bias=True), nn.ReLU(inplace=True), nn.Linear(512, heads, bias=False)
        )
        offsets = torch.arange(-(WINDOW - 1), WINDOW, dtype=torch.float32) / (WINDOW - 1) * 8
        table = torch.stack(torch.meshgrid([offsets, offsets], indexing="ij")).permute(1, 2, 0).unsqueeze(0)
        table = torch.sign(table) * torch.log2(torch.abs(table) + 1.0) / math.log2(8)
        self.register_buffer("relative_coords_table", table, persistent=False)
        self.register_buffer("relative_position_index", relative_position_index(WINDOW), persistent=False)
        self.qkv, self.proj = nn.Linear(dim, dim * 3, bias=False), nn.Linear(dim, dim)
        self.q_bias, self.v_bias = nn.Parameter(torch.zeros(dim)), nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        b, n, c = x.shape
        qkv_bias = torch.cat((self.q_bias, torch.zeros_like(self.v_bias, requires_grad=False), self.v_bias))
        qkv = F.linear(input=x, weight=self.qkv.weight, bias=qkv_bias)
        qkv = qkv.reshape(b, n, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = qkv[0], qkv[1], qkv[2]
        attention = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1)
        attention = attention * torch.clamp(self.logit_scale, max=math.log(1.0 / 0.01)).exp()
        table = self.cpb_mlp(self.relative_coords_table).view(-1, self.num_heads)
        bias = table[self.relative_position_index.view(-1)].view(n, n, -1).permute(2, 0, 1).contiguous()
        attention = attention + 16 * torch.sigmoid(bias).unsqueeze(0)
        if mask is not None:
            count = mask.shape[0]
            attention = attention.view(b // count, count, self.num_heads, n, n) + mask.unsqueeze(1).unsqueeze(0)
            attention = attention.view(-1, self.num_heads, n, n)
        return self.proj((attention.softmax(dim=-1) @ v).transpose(1, 2).reshape(b, n, c))


class Block(nn.Module):
    """Normalisation comes after attention and after the feed-forward layers."""

    def __init__(self, dim: int, heads: int, side: int, shift: int) -> None:
        super().__init__()
        self.side, self.shift = side, shift
        self.norm1, self.attn, self.norm2 = nn.LayerNorm(dim), WindowAttention(dim, heads), nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, dim * 4), nn.GELU(), nn.Linear(dim * 4, dim))
        self.register_buffer("attn_mask", shift_mask(side, side, WINDOW, shift) if shift else None)

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        shortcut = x
        x = x.view(b, self.side, self.side, c)
        if self.shift:
            x = torch.roll(x, shifts=(-self.shift, -self.shift), dims=(1, 2))
        windows = self.attn(window_partition(x, WINDOW).view(-1, WINDOW * WINDOW, c), self.attn_mask)
        x = window_reverse(windows.view(-1, WINDOW, WINDOW, c), WINDOW, self.side, self.side)
        if self.shift:
            x = torch.roll(x, shifts=(self.shift, self.shift), dims=(1, 2))
        x = shortcut + self.norm1(x.view(b, n, c))
        return x + self.norm2(self.mlp(x))


class PatchMerging(nn.Module):
    def __init__(self, dim: int, side: int) -> None:
        super().__init__()
        self.side, self.reduction, self.norm = side, nn.Linear(4 * dim, 2 * dim, bias=False), nn.LayerNorm(2 * dim)

    def forward(self, x: Tensor) -> Tensor:
        b, _, c = x.shape
        x = x.view(b, self.side, self.side, c)
        x0, x1, x2, x3 = x[:, 0::2, 0::2, :], x[:, 1::2, 0::2, :], x[:, 0::2, 1::2, :], x[:, 1::2, 1::2, :]
        return self.norm(self.reduction(torch.cat([x0, x1, x2, x3], -1).view(b, -1, 4 * c)))


class SwinV2(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patch_embed, self.patch_norm = nn.Conv2d(3, WIDTHS[0], 4, 4), nn.LayerNorm(WIDTHS[0])
        self.stages, self.merges, side = nn.ModuleList(), nn.ModuleList(), SIZE[0] // 4
        for width, depth, heads in zip(WIDTHS, DEPTHS, HEADS, strict=True):
            shift = WINDOW // 2 if side > WINDOW else 0
            blocks = (Block(width, heads, side, shift if index % 2 else 0) for index in range(depth))
            self.stages.append(nn.Sequential(*blocks))
            self.merges.append(PatchMerging(width, side) if side > SIZE[0] // 32 else nn.Identity())
            side //= 2
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in WIDTHS)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.patch_norm(self.patch_embed(x).flatten(2).transpose(1, 2))
        found = []
        for stage, merge, norm in zip(self.stages, self.merges, self.norms, strict=True):
            x = stage(x)
            b, n, c = x.shape
            side = math.isqrt(n)
            found.append(norm(x).view(b, side, side, c).permute(0, 3, 1, 2).contiguous())
            x = merge(x)
        return found


def build() -> nn.Module:
    return EncoderDecoder(SwinV2(), SemanticFPN(WIDTHS, 150))
