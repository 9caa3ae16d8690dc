"""FastViT (Vasu et al., "FastViT: A Fast Hybrid Vision Transformer using Structural Reparameterization", 2023) with
Semantic FPN (Kirillov et al., "Panoptic Feature Pyramid Networks", 2019).

The variant T8 with 150 classes at 256x256, reparameterised for inference: every RepMixer is one depthwise convolution.
7.3 million parameters, 3.1 million of them in the backbone.
"""

from __future__ import annotations

import torch
from architectures._encoder_decoder import EncoderDecoder
from architectures._fpn import SemanticFPN
from torch import Tensor, nn

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


def build() -> nn.Module:
    return EncoderDecoder(FastViT(), SemanticFPN(WIDTHS, 150))
