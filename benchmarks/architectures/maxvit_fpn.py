"""MaxViT (Tu et al., "MaxViT: Multi-Axis Vision Transformer", 2022) with Semantic FPN (Kirillov et al., "Panoptic
Feature Pyramid Networks", 2019).

The variant Tiny with 150 classes at 224x224, where every map divides into 7x7 windows: 34.4 million parameters, 30.1
million of them in the backbone.
"""

from __future__ import annotations

import torch
from architectures._encoder_decoder import EncoderDecoder
from architectures._fpn import SemanticFPN
from torch import Tensor, nn

SIZE = (224, 224)
WIDTHS, DEPTHS, WINDOW, HEAD = (64, 128, 256, 512), (2, 2, 5, 2), 7, 32


class SqueezeExcite(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2, self.act = nn.Conv2d(width, hidden, 1), nn.Conv2d(hidden, width, 1), nn.SiLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.fc2(self.act(self.fc1(x.mean((2, 3), keepdim=True)))).sigmoid()


class MBConv(nn.Module):
    """An inverted residual block with normalisation first, and squeeze and excitation."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        hidden = outputs * 4
        self.shortcut: nn.Module = nn.Identity()
        if stride == 2:
            pool = nn.AvgPool2d(3, 2, 1)
            self.shortcut = nn.Sequential(pool, nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity())
        self.pre_norm, self.act = nn.BatchNorm2d(inputs, eps=1e-3), nn.GELU(approximate="tanh")
        self.conv1, self.norm1 = nn.Conv2d(inputs, hidden, 1, bias=False), nn.BatchNorm2d(hidden, eps=1e-3)
        self.conv2 = nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False)
        self.norm2, self.se = nn.BatchNorm2d(hidden, eps=1e-3), SqueezeExcite(hidden, outputs // 4)
        self.conv3 = nn.Conv2d(hidden, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = self.shortcut(x)
        x = self.act(self.norm1(self.conv1(self.pre_norm(x))))
        x = self.act(self.norm2(self.conv2(x)))
        return self.conv3(self.se(x)) + shortcut


class Attention(nn.Module):
    """Attention within groups of 7x7 places, with a learned bias for each relative position."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.num_heads, self.scale = dim // HEAD, HEAD**-0.5
        self.qkv, self.proj = nn.Linear(dim, dim * 3), nn.Linear(dim, dim)
        self.bias_table = nn.Parameter(torch.zeros(self.num_heads, 2 * WINDOW - 1, 2 * WINDOW - 1))
        distance = torch.arange(WINDOW)[None, :] - torch.arange(WINDOW)[:, None] + WINDOW - 1
        self.register_buffer("distance", distance, persistent=False)

    def _bias(self) -> Tensor:
        rows = self.bias_table[:, self.distance]  # heads, row, row, column distance
        area = WINDOW * WINDOW
        return rows[..., self.distance].permute(0, 1, 3, 2, 4).reshape(self.num_heads, area, area)

    def forward(self, x: Tensor) -> Tensor:
        shape = x.shape
        x = x.reshape(-1, WINDOW * WINDOW, shape[-1])
        b, n, _ = x.shape
        q, k, v = self.qkv(x).view(b, n, self.num_heads, HEAD * 3).transpose(1, 2).chunk(3, dim=3)
        attention = ((q * self.scale) @ k.transpose(-2, -1) + self._bias()).softmax(dim=-1)
        return self.proj((attention @ v).transpose(1, 2).reshape(shape))


class PartitionAttention(nn.Module):
    """Attention within windows, or among places that lie equally far apart (the grid)."""

    def __init__(self, dim: int, grid: bool) -> None:
        super().__init__()
        self.grid, self.norm1, self.attn, self.norm2 = grid, nn.LayerNorm(dim), Attention(dim), nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, dim * 4), nn.GELU(approximate="tanh"), nn.Linear(dim * 4, dim))

    def _partition_attn(self, x: Tensor) -> Tensor:
        b, height, width, c = x.shape
        rows, columns = height // WINDOW, width // WINDOW
        if self.grid:
            x = x.view(b, WINDOW, rows, WINDOW, columns, c).permute(0, 2, 4, 1, 3, 5).contiguous()
        else:
            x = x.view(b, rows, WINDOW, columns, WINDOW, c).permute(0, 1, 3, 2, 4, 5).contiguous()
        x = self.attn(x.view(-1, WINDOW, WINDOW, c)).view(b, rows, columns, WINDOW, WINDOW, c)
        x = x.permute(0, 3, 1, 4, 2, 5) if self.grid else x.permute(0, 1, 3, 2, 4, 5)
        return x.contiguous().view(b, height, width, c)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self._partition_attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv, self.attn_block = MBConv(inputs, outputs, stride), PartitionAttention(outputs, grid=False)
        self.attn_grid = PartitionAttention(outputs, grid=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).permute(0, 2, 3, 1)
        return self.attn_grid(self.attn_block(x)).permute(0, 3, 1, 2)


class MaxViT(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 64, 3, 2, 1),
            nn.BatchNorm2d(64, eps=1e-3),
            nn.GELU(approximate="tanh"),
            nn.Conv2d(64, 64, 3, 1, 1),
        )
        self.stages, inputs = nn.ModuleList(), 64
        for width, depth in zip(WIDTHS, DEPTHS, strict=True):
            rest = [Block(width, width, 1) for _ in range(depth - 1)]
            self.stages.append(nn.Sequential(Block(inputs, width, 2), *rest))
            inputs = width

    def forward(self, x: Tensor) -> list[Tensor]:
        x, found = self.stem(x), []
        for stage in self.stages:
            x = stage(x)
            found.append(x)
        return found


def build() -> nn.Module:
    return EncoderDecoder(MaxViT(), SemanticFPN(WIDTHS, 150))
