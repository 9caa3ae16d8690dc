"""EdgeNeXt (Maaz et al., "EdgeNeXt: Efficiently Amalgamated CNN-Transformer Architecture for Mobile Vision
Applications", 2022) with Semantic FPN (Kirillov et al., "Panoptic Feature Pyramid Networks", 2019).

The variant XX-Small with 21 classes at 256x256: 5.2 million parameters, 1.2 million of them in the backbone.
"""

from __future__ import annotations

import math

import torch
from architectures._encoder_decoder import EncoderDecoder
from architectures._fpn import SemanticFPN
from architectures._layer_norm import SpelledOutLayerNorm2d
from torch import Tensor, nn
from torch.nn import functional as F

SIZE = (256, 256)
WIDTHS, DEPTHS, KERNELS, SCALES, GLOBAL = (24, 48, 88, 168), (2, 2, 6, 2), (3, 5, 7, 9), (2, 2, 3, 4), (0, 1, 1, 1)


class FourierPosition(nn.Module):
    """Sines and cosines of rows and columns, projected to the map's channels."""

    def __init__(self, width: int, hidden: int = 32, temperature: float = 10000) -> None:
        super().__init__()
        self.token_projection = nn.Conv2d(hidden * 2, width, 1)
        self.hidden, self.temperature = hidden, temperature

    def forward(self, b: int, height: int, width: int) -> Tensor:
        mask = torch.zeros(b, height, width).bool().to(self.token_projection.weight.device)
        not_mask = ~mask
        y = not_mask.cumsum(1, dtype=torch.float32)
        x = not_mask.cumsum(2, dtype=torch.float32)
        y = y / (y[:, -1:, :] + 1e-6) * 2 * math.pi
        x = x / (x[:, :, -1:] + 1e-6) * 2 * math.pi
        powers = torch.arange(self.hidden, dtype=torch.float32, device=mask.device)
        powers = self.temperature ** (2 * torch.div(powers, 2, rounding_mode="floor") / self.hidden)
        waves = []
        for place in (y, x):
            angle = place[:, :, :, None] / powers
            waves.append(torch.stack((angle[:, :, :, 0::2].sin(), angle[:, :, :, 1::2].cos()), dim=4).flatten(3))
        return self.token_projection(torch.cat(waves, dim=3).permute(0, 3, 1, 2))


class XCA(nn.Module):
    """Cross-covariance attention: among channels instead of places."""

    def __init__(self, dim: int, heads: int = 4) -> None:
        super().__init__()
        self.num_heads, self.temperature = heads, nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv, self.proj = nn.Linear(dim, dim * 3), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.num_heads, c // self.num_heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv[0].transpose(-2, -1), qkv[1].transpose(-2, -1), qkv[2].transpose(-2, -1)
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        attention = ((q @ k.transpose(-2, -1)) * self.temperature).softmax(dim=-1)
        return self.proj((attention @ v).permute(0, 3, 1, 2).reshape(b, n, c))


class ConvEncoder(nn.Module):
    def __init__(self, dim: int, kernel: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, kernel, padding=kernel // 2, groups=dim)
        self.norm, self.gamma = nn.LayerNorm(dim, eps=1e-6), nn.Parameter(1e-6 * torch.ones(dim))
        self.pwconv1, self.act, self.pwconv2 = nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x
        x = self.dwconv(x).permute(0, 2, 3, 1)
        x = self.gamma * self.pwconv2(self.act(self.pwconv1(self.norm(x))))
        return shortcut + x.permute(0, 3, 1, 2)


class SDTAEncoder(nn.Module):
    """Split depthwise convolutions, each fed with the one before, then attention among channels."""

    def __init__(self, dim: int, scales: int, position: bool) -> None:
        super().__init__()
        self.width, count = math.ceil(dim / scales), max(1, scales - 1)
        self.convs = nn.ModuleList(
            nn.Conv2d(self.width, self.width, 3, padding=1, groups=self.width) for _ in range(count)
        )
        self.pos_embd = FourierPosition(dim) if position else None
        self.norm_xca, self.xca = nn.LayerNorm(dim, eps=1e-6), XCA(dim)
        self.gamma_xca, self.gamma = nn.Parameter(1e-6 * torch.ones(dim)), nn.Parameter(1e-6 * torch.ones(dim))
        self.norm, self.act = nn.LayerNorm(dim, eps=1e-6), nn.GELU()
        self.pwconv1, self.pwconv2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x
        parts = torch.split(x, self.width, 1)
        found = []
        for index, conv in enumerate(self.convs):
            found.append(conv(parts[index] if index == 0 else found[-1] + parts[index]))
        x = torch.cat((*found, *parts[len(self.convs) :]), 1)
        b, c, height, width = x.shape
        x = x.reshape(b, c, height * width).permute(0, 2, 1)
        if self.pos_embd:
            x = x + self.pos_embd(b, height, width).reshape(b, -1, x.shape[1]).permute(0, 2, 1)
        x = x + self.gamma_xca * self.xca(self.norm_xca(x))
        x = x.reshape(b, height, width, c)
        x = self.gamma * self.pwconv2(self.act(self.pwconv1(self.norm(x))))
        return shortcut + x.permute(0, 3, 1, 2)


class EdgeNeXt(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        stem = nn.Sequential(nn.Conv2d(3, WIDTHS[0], 4, 4), SpelledOutLayerNorm2d(WIDTHS[0]))
        self.downsample_layers, self.stages = nn.ModuleList([stem]), nn.ModuleList()
        for index, (width, depth) in enumerate(zip(WIDTHS, DEPTHS, strict=True)):
            if index:
                before = WIDTHS[index - 1]
                down = nn.Sequential(SpelledOutLayerNorm2d(before), nn.Conv2d(before, width, 2, 2))
                self.downsample_layers.append(down)
            blocks: list[nn.Module] = [ConvEncoder(width, KERNELS[index]) for _ in range(depth - GLOBAL[index])]
            blocks += [SDTAEncoder(width, SCALES[index], index == 1) for _ in range(GLOBAL[index])]
            self.stages.append(nn.Sequential(*blocks))

    def forward(self, x: Tensor) -> list[Tensor]:
        found = []
        for down, stage in zip(self.downsample_layers, self.stages, strict=True):
            x = stage(down(x))
            found.append(x)
        return found


def build() -> nn.Module:
    return EncoderDecoder(EdgeNeXt(), SemanticFPN(WIDTHS, 21))
