"""PoolFormer (Yu et al., "MetaFormer Is Actually What You Need for Vision", 2022) with Semantic FPN (Kirillov et al.,
"Panoptic Feature Pyramid Networks", 2019).

The variant S12 with 150 classes at 256x256: 15.7 million parameters.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from architectures._encoder_decoder import EncoderDecoder
from torch import Tensor, nn
from torch.nn import functional as F

SIZE = (256, 256)
WIDTHS, DEPTHS = (64, 128, 320, 512), (2, 2, 6, 2)


class Pooling(nn.Module):
    """Mixes tokens by average pooling; the subtraction makes up for the block's shortcut."""

    def __init__(self, size: int = 3) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(size, stride=1, padding=size // 2, count_include_pad=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(x) - x


class Block(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm1, self.token_mixer, self.norm2 = nn.GroupNorm(1, dim), Pooling(), nn.GroupNorm(1, dim)
        self.mlp = nn.Sequential(nn.Conv2d(dim, dim * 4, 1), nn.GELU(), nn.Conv2d(dim * 4, dim, 1))
        self.layer_scale_1 = nn.Parameter(1e-5 * torch.ones(dim))
        self.layer_scale_2 = nn.Parameter(1e-5 * torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.layer_scale_1.unsqueeze(-1).unsqueeze(-1) * self.token_mixer(self.norm1(x))
        return x + self.layer_scale_2.unsqueeze(-1).unsqueeze(-1) * self.mlp(self.norm2(x))


class PoolFormer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        stems = [nn.Conv2d(3, WIDTHS[0], 7, 4, 2), *(nn.Conv2d(a, b, 3, 2, 1) for a, b in pairwise(WIDTHS))]
        self.patch_embeds = nn.ModuleList(stems)
        stages = zip(WIDTHS, DEPTHS, strict=True)
        self.blocks = nn.ModuleList(nn.Sequential(*(Block(width) for _ in range(n))) for width, n in stages)
        self.norms = nn.ModuleList(nn.GroupNorm(1, width) for width in WIDTHS)

    def forward(self, x: Tensor) -> list[Tensor]:
        found = []
        for embed, blocks, norm in zip(self.patch_embeds, self.blocks, self.norms, strict=True):
            x = blocks(embed(x))
            found.append(norm(x))
        return found


def smooth(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())


class SemanticFPN(nn.Module):
    """A feature pyramid whose levels are enlarged to stride 4 step by step and added."""

    def __init__(self, inputs: tuple[int, ...], classes: int, pyramid: int = 256, width: int = 128) -> None:
        super().__init__()
        self.lateral_convs = nn.ModuleList(nn.Conv2d(each, pyramid, 1) for each in inputs)
        self.fpn_convs = nn.ModuleList(nn.Conv2d(pyramid, pyramid, 3, padding=1) for _ in inputs)
        self.scale_heads = nn.ModuleList([smooth(pyramid, width)])
        for level in range(1, len(inputs)):
            layers: list[nn.Module] = []
            for index in range(level):
                layers += [smooth(width if index else pyramid, width), nn.Upsample(scale_factor=2, mode="bilinear")]
            self.scale_heads.append(nn.Sequential(*layers))
        self.conv_seg = nn.Conv2d(width, classes, 1)

    def forward(self, maps: list[Tensor]) -> Tensor:
        laterals = [conv(maps[level]) for level, conv in enumerate(self.lateral_convs)]
        for level in range(len(laterals) - 1, 0, -1):
            laterals[level - 1] = laterals[level - 1] + F.interpolate(laterals[level], scale_factor=2, mode="nearest")
        levels = [conv(laterals[level]) for level, conv in enumerate(self.fpn_convs)]
        output = self.scale_heads[0](levels[0])
        for level in range(1, len(levels)):
            scaled = self.scale_heads[level](levels[level])
            output = output + F.interpolate(scaled, size=output.shape[2:], mode="bilinear", align_corners=False)
        return self.conv_seg(output)


def build() -> nn.Module:
    return EncoderDecoder(PoolFormer(), SemanticFPN(WIDTHS, 150))
