"""DPT (Ranftl et al., "Vision Transformers for Dense Prediction", 2021) for segmentation.

A small variant on ViT-S/16 (the paper has ViT-L and hybrid networks): 150 classes at 256x256, 128 channels in the
decoder, 28 million parameters.
"""

from __future__ import annotations

import torch
from architectures._vit import Attention, Block
from torch import Tensor, nn
from torch.nn import functional as F

SIZE = (256, 256)


class ProjectReadout(nn.Module):
    """Joins the class token to every other token."""

    def __init__(self, dim: int, start_index: int = 1) -> None:
        super().__init__()
        self.start_index, self.project = start_index, nn.Sequential(nn.Linear(2 * dim, dim), nn.GELU())

    def forward(self, x: Tensor) -> Tensor:
        readout = x[:, 0].unsqueeze(1).expand_as(x[:, self.start_index :])
        return self.project(torch.cat((x[:, self.start_index :], readout), -1))


class Transpose(nn.Module):
    def __init__(self, dim0: int, dim1: int) -> None:
        super().__init__()
        self.dim0, self.dim1 = dim0, dim1

    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(self.dim0, self.dim1)


def reassemble(dim: int, width: int, resize: nn.Module) -> nn.Sequential:
    """From tokens to a map of another resolution."""
    grid = torch.Size([SIZE[0] // 16, SIZE[1] // 16])
    unflatten = nn.Unflatten(2, grid)
    return nn.Sequential(ProjectReadout(dim), Transpose(1, 2), unflatten, nn.Conv2d(dim, width, 1), resize)


class ViT(nn.Module):
    def __init__(self, widths: tuple[int, ...], dim: int = 384, depth: int = 12, heads: int = 6) -> None:
        super().__init__()
        self.patch_embed, self.cls_token = nn.Conv2d(3, dim, 16, 16), nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + SIZE[0] // 16 * (SIZE[1] // 16), dim))
        self.blocks = nn.ModuleList(Block(dim, Attention(dim, heads), eps=1e-6) for _ in range(depth))
        self.hooks = (2, 5, 8, 11)
        first, second, third, fourth = widths
        self.reassembles = nn.ModuleList(
            [
                reassemble(dim, first, nn.ConvTranspose2d(first, first, 4, 4)),
                reassemble(dim, second, nn.ConvTranspose2d(second, second, 2, 2)),
                reassemble(dim, third, nn.Identity()),
                reassemble(dim, fourth, nn.Conv2d(fourth, fourth, 3, 2, 1)),
            ]
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.patch_embed(x).flatten(2).transpose(1, 2)
        x = torch.cat((self.cls_token.expand(x.shape[0], -1, -1), x), dim=1) + self.pos_embed
        hooked = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self.hooks:
                hooked.append(x)
        return [assemble(tokens) for assemble, tokens in zip(self.reassembles, hooked, strict=True)]


class ResidualConvUnit(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn1, self.bn2, self.activation = nn.BatchNorm2d(width), nn.BatchNorm2d(width), nn.ReLU(False)

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn1(self.conv1(self.activation(x)))
        return self.bn2(self.conv2(self.activation(out))) + x


class FeatureFusion(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.unit1, self.unit2, self.out_conv = (
            ResidualConvUnit(width),
            ResidualConvUnit(width),
            nn.Conv2d(width, width, 1),
        )

    def forward(self, *xs: Tensor) -> Tensor:
        output = xs[0]
        if len(xs) == 2:
            output = output + self.unit1(xs[1])
        output = F.interpolate(self.unit2(output), scale_factor=2, mode="bilinear", align_corners=True)
        return self.out_conv(output)


class DPT(nn.Module):
    def __init__(self, classes: int = 150, width: int = 128, widths: tuple[int, ...] = (48, 96, 192, 384)) -> None:
        super().__init__()
        self.pretrained = ViT(widths)
        self.layers_rn = nn.ModuleList(nn.Conv2d(each, width, 3, padding=1, bias=False) for each in widths)
        self.refinenets = nn.ModuleList(FeatureFusion(width) for _ in widths)
        self.output_conv = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(True),
            nn.Dropout(0.1, False),
            nn.Conv2d(width, classes, 1),
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        one, two, three, four = (conv(each) for conv, each in zip(self.layers_rn, self.pretrained(x), strict=True))
        path = self.refinenets[3](four)
        path = self.refinenets[2](path, three)
        path = self.refinenets[1](path, two)
        return self.output_conv(self.refinenets[0](path, one))


def build() -> nn.Module:
    return DPT()
