"""ConvNeXt V2 (Woo et al., "ConvNeXt V2: Co-designing and Scaling ConvNets with Masked Autoencoders", 2023) with
Semantic FPN (Kirillov et al., "Panoptic Feature Pyramid Networks", 2019).

The variant Atto with 150 classes at 256x256: 7.5 million parameters, 3.4 million of them in the backbone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SIZE = (256, 256)
WIDTHS, DEPTHS = (40, 80, 160, 320), (2, 2, 6, 2)


class LayerNorm2d(nn.LayerNorm):
    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)
        x = F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


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


class SemanticFPN(nn.Module):
    """A feature pyramid whose levels are enlarged to stride 4 step by step and added."""

    def __init__(self, inputs: Sequence[int], classes: int, pyramid: int = 256, width: int = 128) -> None:
        super().__init__()
        self.lateral_convs = nn.ModuleList(nn.Conv2d(each, pyramid, 1) for each in inputs)
        self.fpn_convs = nn.ModuleList(nn.Conv2d(pyramid, pyramid, 3, padding=1) for _ in inputs)
        self.scale_heads = nn.ModuleList()
        for level in range(len(inputs)):
            layers: list[nn.Module] = []
            for index in range(max(1, level)):
                layers += [nn.Conv2d(width if index else pyramid, width, 3, padding=1, bias=False)]
                layers += [nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
                layers += [nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)] if level else []
            self.scale_heads.append(nn.Sequential(*layers))
        self.conv_seg = nn.Conv2d(width, classes, 1)

    def forward(self, maps: list[Tensor]) -> Tensor:
        laterals = [conv(maps[level]) for level, conv in enumerate(self.lateral_convs)]
        for level in range(len(laterals) - 1, 0, -1):
            size = laterals[level - 1].shape[2:]
            laterals[level - 1] = laterals[level - 1] + F.interpolate(laterals[level], size=size, mode="nearest")
        found = [head(conv(x)) for head, conv, x in zip(self.scale_heads, self.fpn_convs, laterals, strict=True)]
        return self.conv_seg(found[0] + found[1] + found[2] + found[3])


class ConvNeXtV2FPN(nn.Module):
    def __init__(self, classes: int = 150) -> None:
        super().__init__()
        self.backbone, self.decode_head = ConvNeXtV2(), SemanticFPN(WIDTHS, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits = self.decode_head(self.backbone(x))
        return F.interpolate(logits, size=x.shape[2:], mode="bilinear", align_corners=False)


def build() -> nn.Module:
    return ConvNeXtV2FPN()
