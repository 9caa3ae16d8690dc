"""ConvNeXt (Liu et al., "A ConvNet for the 2020s", 2022) with UPerNet (Xiao et al., "Unified Perceptual Parsing for
Scene Understanding", 2018).

The variant Tiny with 150 classes at 256x256: 59 million parameters (the paper's 60 million include a head that is only
trained).
"""

from __future__ import annotations

import torch
from architectures._convolutions import ConvBNReLU
from architectures._encoder_decoder import EncoderDecoder
from architectures._layer_norm import SpelledOutLayerNorm2d
from torch import Tensor, nn
from torch.nn import functional as F

SIZE = (256, 256)
WIDTHS, DEPTHS = (96, 192, 384, 768), (3, 3, 9, 3)


class Block(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dwconv, self.norm = nn.Conv2d(dim, dim, 7, padding=3, groups=dim), nn.LayerNorm(dim, eps=1e-6)
        self.pwconv1, self.act, self.pwconv2 = nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim)
        self.gamma = nn.Parameter(1e-6 * torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x
        x = self.dwconv(x)
        x = x.permute(0, 2, 3, 1)
        x = self.pwconv2(self.act(self.pwconv1(self.norm(x))))
        x = self.gamma * x
        x = x.permute(0, 3, 1, 2)
        return shortcut + x


class ConvNeXt(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        stem = nn.Sequential(nn.Conv2d(3, WIDTHS[0], 4, 4), SpelledOutLayerNorm2d(WIDTHS[0]))
        self.downsample_layers, self.stages, self.norms = nn.ModuleList([stem]), nn.ModuleList(), nn.ModuleList()
        for index, (width, depth) in enumerate(zip(WIDTHS, DEPTHS, strict=True)):
            if index:
                before = WIDTHS[index - 1]
                norm = SpelledOutLayerNorm2d(before)
                self.downsample_layers.append(nn.Sequential(norm, nn.Conv2d(before, width, 2, 2)))
            self.stages.append(nn.Sequential(*(Block(width) for _ in range(depth))))
            self.norms.append(SpelledOutLayerNorm2d(width))

    def forward(self, x: Tensor) -> list[Tensor]:
        found = []
        for down, stage, norm in zip(self.downsample_layers, self.stages, self.norms, strict=True):
            x = stage(down(x))
            found.append(norm(x))
        return found


class UPerHead(nn.Module):
    """A pyramid pooling module on the last map, a feature pyramid, and a fusion of all levels."""

    def __init__(self, classes: int, width: int = 512, bins: tuple[int, ...] = (1, 2, 3, 6)) -> None:
        super().__init__()
        self.psp = nn.ModuleList(nn.Sequential(nn.AdaptiveAvgPool2d(b), ConvBNReLU(WIDTHS[-1], width, 1)) for b in bins)
        self.bottleneck = ConvBNReLU(WIDTHS[-1] + len(bins) * width, width, 3)
        self.laterals = nn.ModuleList(ConvBNReLU(each, width, 1) for each in WIDTHS[:-1])
        self.fpn = nn.ModuleList(ConvBNReLU(width, width, 3) for _ in WIDTHS[:-1])
        self.fuse, self.conv_seg = ConvBNReLU(len(WIDTHS) * width, width, 3), nn.Conv2d(width, classes, 1)

    def forward(self, maps: list[Tensor]) -> Tensor:
        size = maps[-1].shape[2:]
        pooled = [maps[-1]]
        for branch in self.psp:
            pooled.append(F.interpolate(branch(maps[-1]), size=size, mode="bilinear", align_corners=False))
        levels = [lateral(maps[index]) for index, lateral in enumerate(self.laterals)]
        levels.append(self.bottleneck(torch.cat(pooled, dim=1)))
        for index in range(len(levels) - 1, 0, -1):
            size = levels[index - 1].shape[2:]
            enlarged = F.interpolate(levels[index], size=size, mode="bilinear", align_corners=False)
            levels[index - 1] = levels[index - 1] + enlarged
        found = [smooth(levels[index]) for index, smooth in enumerate(self.fpn)]
        found.append(levels[-1])
        for index in range(len(found) - 1, 0, -1):
            size = found[0].shape[2:]
            found[index] = F.interpolate(found[index], size=size, mode="bilinear", align_corners=False)
        return self.conv_seg(self.fuse(torch.cat(found, dim=1)))


def build() -> nn.Module:
    return EncoderDecoder(ConvNeXt(), UPerHead(150))
