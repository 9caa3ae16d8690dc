"""FastViT (Vasu et al., "FastViT: A Fast Hybrid Vision Transformer using Structural Reparameterization", 2023) with
Semantic FPN (Kirillov et al., "Panoptic Feature Pyramid Networks", 2019).

The variant T8 with 150 classes at 256x256, reparameterised for inference: every RepMixer is one depthwise convolution.
7.3 million parameters, 3.1 million of them in the backbone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SIZE = (256, 256)
WIDTHS, DEPTHS, RATIO = (48, 96, 192, 384), (2, 2, 4, 2), 3


def mobile_one(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """A MobileOne block after reparameterisation."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups), nn.GELU())


class ConvFFN(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(width, width, 7, padding=3, groups=width, bias=False), nn.BatchNorm2d(width)
        )
        self.fc1, self.act, self.fc2 = nn.Conv2d(width, hidden, 1), nn.GELU(), nn.Conv2d(hidden, width, 1)
        self.drop = nn.Dropout(0.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.fc2(self.drop(self.act(self.fc1(self.conv(x))))))


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.token_mixer = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.convffn = ConvFFN(width, RATIO * width)
        self.layer_scale = nn.Parameter(1e-5 * torch.ones((width, 1, 1)))

    def forward(self, x: Tensor) -> Tensor:
        x = self.token_mixer(x)
        return x + self.layer_scale * self.convffn(x)


class FastViT(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        width = WIDTHS[0]
        self.patch_embed = nn.Sequential(
            mobile_one(3, width, 3, 2), mobile_one(width, width, 3, 2, width), mobile_one(width, width, 1)
        )
        self.downs, self.stages = nn.ModuleList([nn.Identity()]), nn.ModuleList()
        for index, (outputs, depth) in enumerate(zip(WIDTHS, DEPTHS, strict=True)):
            if index:  # a large depthwise kernel makes two channels of each
                large = nn.Conv2d(width, outputs, 7, 2, 3, groups=width)
                self.downs.append(nn.Sequential(large, mobile_one(outputs, outputs, 1)))
            self.stages.append(nn.Sequential(*(Block(outputs) for _ in range(depth))))
            width = outputs
        self.norms = nn.ModuleList(nn.BatchNorm2d(each) for each in WIDTHS)

    def forward(self, x: Tensor) -> list[Tensor]:
        x, found = self.patch_embed(x), []
        for down, stage, norm in zip(self.downs, self.stages, self.norms, strict=True):
            x = stage(down(x))
            found.append(norm(x))
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


class FastViTFPN(nn.Module):
    def __init__(self, classes: int = 150) -> None:
        super().__init__()
        self.backbone, self.decode_head = FastViT(), SemanticFPN(WIDTHS, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits = self.decode_head(self.backbone(x))
        return F.interpolate(logits, size=x.shape[2:], mode="bilinear", align_corners=False)


def build() -> nn.Module:
    return FastViTFPN()
