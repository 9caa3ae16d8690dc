"""Swin Transformer (Liu et al., "Swin Transformer: Hierarchical Vision Transformer using Shifted Windows", 2021) with
UPerNet (Xiao et al., "Unified Perceptual Parsing for Scene Understanding", 2018).

The variant Tiny with 150 classes at 256x256: 59 million parameters (the paper's 60 million include a head that is
only trained). Maps that do not fill whole 7x7 windows are padded.
"""

from __future__ import annotations

import torch
from architectures._encoder_decoder import EncoderDecoder
from architectures._windows import WindowAttention, shift_mask, window_partition, window_reverse
from torch import Tensor, nn
from torch.nn import functional as F

SIZE = (256, 256)
WINDOW = 7


class Block(nn.Module):
    def __init__(self, dim: int, heads: int, shift: int) -> None:
        super().__init__()
        self.shift = shift
        self.norm1, self.attn, self.norm2 = nn.LayerNorm(dim), WindowAttention(dim, heads, WINDOW), nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, dim * 4), nn.GELU(), nn.Linear(dim * 4, dim))

    def forward(self, x: Tensor, height: int, width: int, mask: Tensor) -> Tensor:
        b, _, c = x.shape
        shortcut = x
        x = self.norm1(x).view(b, height, width, c)
        bottom, right = (WINDOW - height % WINDOW) % WINDOW, (WINDOW - width % WINDOW) % WINDOW
        x = F.pad(x, (0, 0, 0, right, 0, bottom))
        high, wide = height + bottom, width + right
        if self.shift:
            x = torch.roll(x, shifts=(-self.shift, -self.shift), dims=(1, 2))
        windows = window_partition(x, WINDOW).view(-1, WINDOW * WINDOW, c)
        windows = self.attn(windows, mask if self.shift else None)
        x = window_reverse(windows.view(-1, WINDOW, WINDOW, c), WINDOW, high, wide)
        if self.shift:
            x = torch.roll(x, shifts=(self.shift, self.shift), dims=(1, 2))
        if right > 0 or bottom > 0:
            x = x[:, :height, :width, :].contiguous()
        x = shortcut + x.view(b, height * width, c)
        return x + self.mlp(self.norm2(x))


class PatchMerging(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm, self.reduction = nn.LayerNorm(4 * dim), nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        b, _, c = x.shape
        x = x.view(b, height, width, c)
        if height % 2 == 1 or width % 2 == 1:
            x = F.pad(x, (0, 0, 0, width % 2, 0, height % 2))
        parts = [x[:, 0::2, 0::2, :], x[:, 1::2, 0::2, :], x[:, 0::2, 1::2, :], x[:, 1::2, 1::2, :]]
        return self.reduction(self.norm(torch.cat(parts, -1).view(b, -1, 4 * c)))


class Layer(nn.Module):
    def __init__(self, dim: int, heads: int, depth: int, last: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(dim, heads, WINDOW // 2 if index % 2 else 0) for index in range(depth))
        self.downsample = None if last else PatchMerging(dim)

    def forward(self, x: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
        high, wide = -(-height // WINDOW) * WINDOW, -(-width // WINDOW) * WINDOW
        mask = shift_mask(high, wide, WINDOW, WINDOW // 2, x.device)
        for block in self.blocks:
            x = block(x, height, width, mask)
        return x, self.downsample(x, height, width) if self.downsample else x


class Swin(nn.Module):
    def __init__(self, dim: int = 96) -> None:
        super().__init__()
        self.patch_embed, self.patch_norm = nn.Conv2d(3, dim, 4, 4), nn.LayerNorm(dim)
        heads, depths = (3, 6, 12, 24), (2, 2, 6, 2)
        self.layers = nn.ModuleList(Layer(dim * 2**i, heads[i], depths[i], i == 3) for i in range(4))
        self.norms = nn.ModuleList(nn.LayerNorm(dim * 2**i) for i in range(4))

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.patch_embed(x)
        height, width = x.shape[2:]
        x, found = self.patch_norm(x.flatten(2).transpose(1, 2)), []
        for layer, norm in zip(self.layers, self.norms, strict=True):
            result, x = layer(x, height, width)
            channels = result.shape[-1]
            found.append(norm(result).view(-1, height, width, channels).permute(0, 3, 1, 2).contiguous())
            height, width = (height + 1) // 2, (width + 1) // 2
        return found


def conv(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    layer = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.ReLU())


class UPerHead(nn.Module):
    """A pyramid pooling module on the last map, a feature pyramid, and a fusion of all levels."""

    def __init__(self, inputs: list[int], classes: int, width: int = 512, bins: tuple[int, ...] = (1, 2, 3, 6)) -> None:
        super().__init__()
        self.psp = nn.ModuleList(nn.Sequential(nn.AdaptiveAvgPool2d(b), conv(inputs[-1], width, 1)) for b in bins)
        self.bottleneck = conv(inputs[-1] + len(bins) * width, width, 3)
        self.laterals = nn.ModuleList(conv(each, width, 1) for each in inputs[:-1])
        self.fpn = nn.ModuleList(conv(width, width, 3) for _ in inputs[:-1])
        self.fuse, self.conv_seg = conv(len(inputs) * width, width, 3), nn.Conv2d(width, classes, 1)

    def forward(self, maps: list[Tensor]) -> Tensor:
        def resized(x: Tensor, like: Tensor) -> Tensor:
            return F.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=False)

        last = maps[-1]
        pooled = [resized(branch(last), last) for branch in self.psp]
        levels = [lateral(each) for lateral, each in zip(self.laterals, maps, strict=False)]
        levels.append(self.bottleneck(torch.cat([last, *pooled], dim=1)))
        for index in range(len(levels) - 1, 0, -1):
            levels[index - 1] = levels[index - 1] + resized(levels[index], levels[index - 1])
        found = [smooth(each) for smooth, each in zip(self.fpn, levels, strict=False)] + [levels[-1]]
        return self.conv_seg(self.fuse(torch.cat([resized(each, found[0]) for each in found], dim=1)))


def build() -> nn.Module:
    return EncoderDecoder(Swin(), UPerHead([96, 192, 384, 768], 150))
