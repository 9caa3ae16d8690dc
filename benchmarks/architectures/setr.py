"""SETR (Zheng et al., "Rethinking Semantic Segmentation from a Sequence-to-Sequence Perspective with Transformers",
2021) with its progressive upsampling head (SETR-PUP).

A small variant with the size of ViT-S/16 and torch's own transformer layers: 150 classes at 256x256, 24 million
parameters (the paper's smallest has 97 million).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

SIZE = (256, 256)


class Encoder(nn.Module):
    def __init__(self, width: int = 384, depth: int = 12, heads: int = 6, patch: int = 16) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, width, patch, patch)
        self.pos_embed = nn.Parameter(torch.zeros(1, (SIZE[0] // patch) * (SIZE[1] // patch), width))
        layer = nn.TransformerEncoderLayer(
            width, heads, 4 * width, dropout=0.1, activation="gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, depth, nn.LayerNorm(width), enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x)
        b, c, height, width = x.shape
        x = self.layers(x.flatten(2).transpose(1, 2) + self.pos_embed)
        return x.transpose(1, 2).reshape(b, c, height, width)


class ProgressiveHead(nn.Module):
    """Four times a convolution and an enlargement by two."""

    def __init__(self, inputs: int, classes: int, width: int = 256) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(inputs)
        self.up_convs = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(inputs if index == 0 else width, width, 3, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
                nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
            )
            for index in range(4)
        )
        self.conv_seg = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        b, c, height, width = x.shape
        x = self.norm(x.reshape(b, c, height * width).transpose(2, 1)).transpose(1, 2)
        x = x.reshape(b, c, height, width)
        for up in self.up_convs:
            x = up(x)
        return self.conv_seg(x)


class SETR(nn.Module):
    def __init__(self, classes: int = 150) -> None:
        super().__init__()
        self.backbone, self.decode_head = Encoder(), ProgressiveHead(384, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.decode_head(self.backbone(x))


def build() -> nn.Module:
    return SETR()
