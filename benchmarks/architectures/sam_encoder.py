"""The image encoder of Segment Anything (Kirillov et al., "Segment Anything", 2023) with a small segmentation head.

A ViT with windows (14 tokens wide, padded) and four layers of global attention, both with relative positions split
into rows and columns (Li et al., "Exploring Plain Vision Transformer Backbones for Object Detection", 2022). A tiny
variant with 192 channels and 12 layers at 320x320, 20x20 tokens; the head enlarges the neck's map by two transposed
convolutions, as the mask decoder does: 8 classes, 6.3 million parameters.
"""

from __future__ import annotations

import torch
from architectures._layer_norm import SpelledOutLayerNorm2d
from torch import Tensor, nn
from torch.nn import functional as F

SIZE = (320, 320)


def window_partition(x: Tensor, window: int) -> tuple[Tensor, tuple[int, int]]:
    """Windows of a padded map (N, H, W, C), and the padded height and width."""
    b, height, width, c = x.shape
    bottom, right = (window - height % window) % window, (window - width % window) % window
    if bottom > 0 or right > 0:
        x = F.pad(x, (0, 0, 0, right, 0, bottom))
    high, wide = height + bottom, width + right
    x = x.view(b, high // window, window, wide // window, window, c)
    return x.permute(0, 1, 3, 2, 4, 5).contiguous().view(-1, window, window, c), (high, wide)


def window_unpartition(windows: Tensor, window: int, padded: tuple[int, int], size: tuple[int, int]) -> Tensor:
    (high, wide), (height, width) = padded, size
    b = windows.shape[0] // (high * wide // window // window)
    x = windows.view(b, high // window, wide // window, window, window, -1)
    x = x.permute(0, 1, 3, 2, 4, 5).contiguous().view(b, high, wide, -1)
    return x[:, :height, :width, :].contiguous() if high > height or wide > width else x


def relative_positions(q_size: int, k_size: int, table: Tensor) -> Tensor:
    """The row of `table` for each pair of places, (queries, keys, channels)."""
    longest = int(2 * max(q_size, k_size) - 1)
    if table.shape[0] != longest:
        resized = F.interpolate(table.reshape(1, table.shape[0], -1).permute(0, 2, 1), size=longest, mode="linear")
        table = resized.reshape(-1, longest).permute(1, 0)
    q_coords = torch.arange(q_size)[:, None] * max(k_size / q_size, 1.0)
    k_coords = torch.arange(k_size)[None, :] * max(q_size / k_size, 1.0)
    return table[((q_coords - k_coords) + (k_size - 1) * max(q_size / k_size, 1.0)).long()]


class Attention(nn.Module):
    def __init__(self, dim: int, heads: int, size: int) -> None:
        super().__init__()
        self.num_heads, self.scale = heads, (dim // heads) ** -0.5
        self.qkv, self.proj = nn.Linear(dim, dim * 3), nn.Linear(dim, dim)
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * size - 1, dim // heads))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * size - 1, dim // heads))

    def _with_positions(self, attention: Tensor, q: Tensor, height: int, width: int) -> Tensor:
        rows = relative_positions(height, height, self.rel_pos_h)
        columns = relative_positions(width, width, self.rel_pos_w)
        b, _, dim = q.shape
        r_q = q.reshape(b, height, width, dim)
        rel_h = torch.einsum("bhwc,hkc->bhwk", r_q, rows)
        rel_w = torch.einsum("bhwc,wkc->bhwk", r_q, columns)
        attention = attention.view(b, height, width, height, width)
        attention = attention + rel_h[:, :, :, :, None] + rel_w[:, :, :, None, :]
        return attention.view(b, height * width, height * width)

    def forward(self, x: Tensor) -> Tensor:
        b, height, width, _ = x.shape
        qkv = self.qkv(x).reshape(b, height * width, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.reshape(3, b * self.num_heads, height * width, -1).unbind(0)
        attention = self._with_positions((q * self.scale) @ k.transpose(-2, -1), q, height, width).softmax(dim=-1)
        x = (attention @ v).view(b, self.num_heads, height, width, -1)
        return self.proj(x.permute(0, 2, 3, 1, 4).reshape(b, height, width, -1))


class Block(nn.Module):
    def __init__(self, dim: int, heads: int, window: int, side: int) -> None:
        super().__init__()
        self.norm1, self.norm2, self.window_size = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6), window
        self.attn = Attention(dim, heads, window or side)
        self.mlp = nn.Sequential(nn.Linear(dim, dim * 4), nn.GELU(), nn.Linear(dim * 4, dim))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x
        x = self.norm1(x)
        if self.window_size > 0:
            height, width = x.shape[1], x.shape[2]
            x, padded = window_partition(x, self.window_size)
        x = self.attn(x)
        if self.window_size > 0:
            x = window_unpartition(x, self.window_size, padded, (height, width))
        x = shortcut + x
        return x + self.mlp(self.norm2(x))


class ImageEncoder(nn.Module):
    def __init__(self, dim: int = 192, depth: int = 12, heads: int = 3, patch: int = 16, out: int = 256) -> None:
        super().__init__()
        side = SIZE[0] // patch
        self.patch_embed = nn.Conv2d(3, dim, patch, patch)
        self.pos_embed = nn.Parameter(torch.zeros(1, side, side, dim))
        windows = [0 if index % 3 == 2 else 14 for index in range(depth)]
        self.blocks = nn.ModuleList(Block(dim, heads, window, side) for window in windows)
        self.neck = nn.Sequential(
            nn.Conv2d(dim, out, 1, bias=False),
            SpelledOutLayerNorm2d(out),
            nn.Conv2d(out, out, 3, padding=1, bias=False),
            SpelledOutLayerNorm2d(out),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x).permute(0, 2, 3, 1)
        x = x + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.neck(x.permute(0, 3, 1, 2))


class SAMSegmentation(nn.Module):
    def __init__(self, classes: int = 8, width: int = 256) -> None:
        super().__init__()
        self.image_encoder = ImageEncoder(out=width)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(width, width // 4, kernel_size=2, stride=2),
            SpelledOutLayerNorm2d(width // 4),
            nn.GELU(),
            nn.ConvTranspose2d(width // 4, width // 8, kernel_size=2, stride=2),
            nn.GELU(),
        )
        self.classifier = nn.Conv2d(width // 8, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        logits = self.classifier(self.output_upscaling(self.image_encoder(x)))
        return F.interpolate(logits, size=x.shape[-2:], mode="bilinear", align_corners=False)


def build() -> nn.Module:
    return SAMSegmentation()
