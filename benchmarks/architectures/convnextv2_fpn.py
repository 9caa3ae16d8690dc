"""ConvNeXt V2 (Woo et al., "ConvNeXt V2: Co-designing and Scaling ConvNets with Masked Autoencoders", 2023) with
Semantic FPN (Kirillov et al., "Panoptic Feature Pyramid Networks", 2019).

The variant Atto with 150 classes at 256x256: 7.5 million parameters, 3.4 million of them in the backbone.
"""

from __future__ import annotations

import torch
from architectures._encoder_decoder import EncoderDecoder
from architectures._fpn import SemanticFPN
from architectures._layer_norm import LayerNorm2d
from torch import Tensor, nn

SIZE = (256, 256)
WIDTHS, DEPTHS = (40, 80, 160, 320), (2, 2, 6, 2)


class GRN(nn.Module):
    """Global response normalisation: a channel counts more where its norm over the map is above the average."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma, self.beta = nn.Parameter(torch.zeros(1, 1, 1, dim)), nn.Parameter(torch.zeros(1, 1, 1, dim))

    def forward(self, x: Tensor) -> Tensor:
        g_x = torch.norm(x, p=2, dim=(1, 2), keepdim=True)
        n_x = g_x / (g_x.mean(dim=-1, keepdim=True) + 1e-6)
        return self.gamma * (x * n_x) + self.beta + x


class Block(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dwconv, self.norm = nn.Conv2d(dim, dim, 7, padding=3, groups=dim), nn.LayerNorm(dim, eps=1e-6)
        self.pwconv1, self.act, self.grn = nn.Linear(dim, 4 * dim), nn.GELU(), GRN(4 * dim)
        self.pwconv2 = nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x
        x = self.dwconv(x).permute(0, 2, 3, 1)
        x = self.pwconv2(self.grn(self.act(self.pwconv1(self.norm(x)))))
        return shortcut + x.permute(0, 3, 1, 2)


class ConvNeXtV2(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.downsample_layers, self.stages, inputs = nn.ModuleList(), nn.ModuleList(), 3
        for width, depth in zip(WIDTHS, DEPTHS, strict=True):
            if inputs == 3:
                down = nn.Sequential(nn.Conv2d(3, width, 4, 4), LayerNorm2d(width, eps=1e-6))
            else:
                down = nn.Sequential(LayerNorm2d(inputs, eps=1e-6), nn.Conv2d(inputs, width, 2, 2))
            self.downsample_layers.append(down)
            self.stages.append(nn.Sequential(*(Block(width) for _ in range(depth))))
            inputs = width

    def forward(self, x: Tensor) -> list[Tensor]:
        found = []
        for down, stage in zip(self.downsample_layers, self.stages, strict=True):
            x = stage(down(x))
            found.append(x)
        return found


def build() -> nn.Module:
    return EncoderDecoder(ConvNeXtV2(), SemanticFPN(WIDTHS, 150))
