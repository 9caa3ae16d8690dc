"""SegNeXt (Guo et al., "SegNeXt: Rethinking Convolutional Attention Design for Semantic Segmentation", 2022).

The variant Tiny with the light Hamburger head (Geng et al., "Is Attention Better Than Matrix Decomposition?", 2021):
150 classes at 512x512, 4.3 million parameters. The matrix decomposition starts from fixed bases, one of the options
of the public code; the other draws random ones for every image.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SIZE = (512, 512)
WIDTHS, DEPTHS, RATIOS = (32, 64, 160, 256), (3, 3, 5, 2), (8, 8, 4, 4)


class MSCA(nn.Module):
    """Multi-scale convolutional attention: strips of several lengths weight the map."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(dim, dim, 5, padding=2, groups=dim)
        self.strips = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(dim, dim, (1, length), padding=(0, length // 2), groups=dim),
                nn.Conv2d(dim, dim, (length, 1), padding=(length // 2, 0), groups=dim),
            )
            for length in (7, 11, 21)
        )
        self.conv3 = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        u = x.clone()
        attention = self.conv0(x)
        first, second, third = (strip(attention) for strip in self.strips)
        return self.conv3(attention + first + second + third) * u


class SpatialAttention(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj_1, self.activation = nn.Conv2d(dim, dim, 1), nn.GELU()
        self.spatial_gating_unit, self.proj_2 = MSCA(dim), nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x.clone()
        return self.proj_2(self.spatial_gating_unit(self.activation(self.proj_1(x)))) + shortcut


class FeedForward(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2, self.act = nn.Conv2d(dim, hidden, 1), nn.Conv2d(hidden, dim, 1), nn.GELU()
        self.dwconv, self.drop = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden), nn.Dropout(0.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.fc2(self.drop(self.act(self.dwconv(self.fc1(x))))))


class Block(nn.Module):
    def __init__(self, dim: int, ratio: int) -> None:
        super().__init__()
        self.norm1, self.attn = nn.BatchNorm2d(dim), SpatialAttention(dim)
        self.norm2, self.mlp = nn.BatchNorm2d(dim), FeedForward(dim, dim * ratio)
        self.layer_scale_1 = nn.Parameter(1e-2 * torch.ones(dim))
        self.layer_scale_2 = nn.Parameter(1e-2 * torch.ones(dim))

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        b, n, c = x.shape
        x = x.permute(0, 2, 1).view(b, c, height, width)
        x = x + self.layer_scale_1.unsqueeze(-1).unsqueeze(-1) * self.attn(self.norm1(x))
        x = x + self.layer_scale_2.unsqueeze(-1).unsqueeze(-1) * self.mlp(self.norm2(x))
        return x.view(b, c, n).permute(0, 2, 1)


def stem(width: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, width // 2, 3, 2, 1),
        nn.BatchNorm2d(width // 2),
        nn.GELU(),
        nn.Conv2d(width // 2, width, 3, 2, 1),
        nn.BatchNorm2d(width),
    )


class MSCAN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        downs = [nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.BatchNorm2d(b)) for a, b in pairwise(WIDTHS)]
        self.patch_embeds = nn.ModuleList([stem(WIDTHS[0]), *downs])
        stages = zip(WIDTHS, RATIOS, DEPTHS, strict=True)
        self.blocks = nn.ModuleList(nn.ModuleList(Block(w, ratio) for _ in range(n)) for w, ratio, n in stages)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in WIDTHS)

    def forward(self, x: Tensor) -> list[Tensor]:
        found = []
        for embed, blocks, norm in zip(self.patch_embeds, self.blocks, self.norms, strict=True):
            x = embed(x)
            b, _, height, width = x.shape
            x = x.flatten(2).transpose(1, 2)
            for block in blocks:
                x = block(x, height, width)
            x = norm(x).reshape(b, height, width, -1).permute(0, 3, 1, 2).contiguous()
            found.append(x)
        return found


class NMF(nn.Module):
    """Non-negative matrix factorisation, seven steps of multiplicative updates; the low-rank product is returned."""

    def __init__(self, dim: int, rank: int = 64, steps: int = 7) -> None:
        super().__init__()
        self.steps = steps
        self.register_buffer("bases", F.normalize(torch.rand(1, dim, rank), dim=1))

    @staticmethod
    def _coefficients(x: Tensor, bases: Tensor, coef: Tensor) -> Tensor:
        numerator = torch.bmm(x.transpose(1, 2), bases)
        return coef * numerator / (coef.bmm(bases.transpose(1, 2).bmm(bases)) + 1e-6)

    @staticmethod
    def _bases(x: Tensor, bases: Tensor, coef: Tensor) -> Tensor:
        return bases * torch.bmm(x, coef) / (bases.bmm(coef.transpose(1, 2).bmm(coef)) + 1e-6)

    def forward(self, x: Tensor) -> Tensor:
        b, c, height, width = x.shape
        x = x.view(b, c, height * width)
        bases = self.bases.repeat(b, 1, 1)
        coef = F.softmax(torch.bmm(x.transpose(1, 2), bases), dim=-1)
        for _ in range(self.steps):
            coef = self._coefficients(x, bases, coef)
            bases = self._bases(x, bases, coef)
        coef = self._coefficients(x, bases, coef)
        return torch.bmm(bases, coef.transpose(1, 2)).view(b, c, height, width)


def normed(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.GroupNorm(32, outputs))


class LightHamHead(nn.Module):
    def __init__(self, inputs: tuple[int, ...], classes: int, width: int = 256) -> None:
        super().__init__()
        self.squeeze = nn.Sequential(normed(sum(inputs), width), nn.ReLU(inplace=True))
        self.ham_in, self.ham, self.ham_out = nn.Conv2d(width, width, 1), NMF(width), normed(width, width)
        self.align, self.conv_seg = nn.Sequential(normed(width, width), nn.ReLU()), nn.Conv2d(width, classes, 1)

    def forward(self, maps: list[Tensor]) -> Tensor:
        size = maps[0].shape[2:]
        resized = [F.interpolate(each, size=size, mode="bilinear", align_corners=False) for each in maps]
        x = self.squeeze(torch.cat(resized, dim=1))
        enjoyed = self.ham_out(self.ham(F.relu(self.ham_in(x), inplace=True)))
        return self.conv_seg(self.align(F.relu(x + enjoyed, inplace=True)))


class SegNeXt(nn.Module):
    def __init__(self, classes: int = 150) -> None:
        super().__init__()
        self.backbone, self.decode_head = MSCAN(), LightHamHead(WIDTHS[1:], classes)

    def forward(self, x: Tensor) -> Tensor:
        logits = self.decode_head(self.backbone(x)[1:])
        return F.interpolate(logits, size=x.shape[2:], mode="bilinear", align_corners=False)


def build() -> nn.Module:
    return SegNeXt()
