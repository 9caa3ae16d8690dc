"""MobileViTv2 (Mehta, Rastegari, "Separable Self-attention for Mobile Vision Transformers", 2022) with DeepLabV3 (Chen
et al., 2017).

The width 0.5 with 21 classes at 512x512, output stride 16: 6.3 million parameters.
"""

from __future__ import annotations

import torch
from architectures._mobilevit import ASPP, InvertedResidual, conv
from torch import Tensor, nn
from torch.nn import functional as F

SIZE = (512, 512)


class LinearSelfAttention(nn.Module):
    """Every patch gets one weight; the weighted sum of the keys multiplies the values."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv_proj, self.out_proj, self.width = nn.Conv2d(width, 1 + 2 * width, 1), nn.Conv2d(width, width, 1), width

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv_proj(x)
        query, key, value = torch.split(qkv, split_size_or_sections=[1, self.width, self.width], dim=1)
        scores = F.softmax(query, dim=-1)
        context = torch.sum(key * scores, dim=-1, keepdim=True)
        return self.out_proj(F.relu(value) * context.expand_as(value))


class Encoder(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.pre_norm_attn = nn.Sequential(nn.GroupNorm(1, width), LinearSelfAttention(width), nn.Dropout(0.0))
        self.pre_norm_ffn = nn.Sequential(
            nn.GroupNorm(1, width), nn.Conv2d(width, 2 * width, 1), nn.SiLU(), nn.Conv2d(2 * width, width, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.pre_norm_attn(x)
        return x + self.pre_norm_ffn(x)


class MobileViTv2Block(nn.Module):
    """Attention among the pixels that have the same place in their 2x2 patch."""

    def __init__(self, inputs: int, width: int, depth: int, dilation: int = 1, patch: int = 2) -> None:
        super().__init__()
        self.local_rep = nn.Sequential(
            conv(inputs, inputs, 3, dilation=dilation, groups=inputs), nn.Conv2d(inputs, width, 1, bias=False)
        )
        self.global_rep = nn.Sequential(*(Encoder(width) for _ in range(depth)), nn.GroupNorm(1, width))
        self.conv_proj, self.patch = conv(width, inputs, act=False), patch

    def forward(self, x: Tensor) -> Tensor:
        x = self.local_rep(x)
        batch, width, high, wide = x.shape
        patches = F.unfold(x, kernel_size=(self.patch, self.patch), stride=(self.patch, self.patch))
        patches = self.global_rep(patches.reshape(batch, width, self.patch * self.patch, -1))
        patches = patches.reshape(batch, width * self.patch * self.patch, -1)
        x = F.fold(patches, output_size=(high, wide), kernel_size=(self.patch, self.patch), stride=(2, 2))
        return self.conv_proj(x)


class MobileViTv2DeepLab(nn.Module):
    def __init__(self, classes: int = 21) -> None:
        super().__init__()
        self.backbone = nn.Sequential(
            conv(3, 16, 3, 2),
            InvertedResidual(16, 32, 2),
            InvertedResidual(32, 64, 2, 2),
            InvertedResidual(64, 64, 2),
            InvertedResidual(64, 128, 2, 2),
            MobileViTv2Block(128, 64, 2),
            InvertedResidual(128, 192, 2, 2),
            MobileViTv2Block(192, 96, 4),
            InvertedResidual(192, 256, 2),
            MobileViTv2Block(256, 128, 3, dilation=2),
        )
        self.aspp = nn.Sequential(ASPP(256, 512, (6, 12, 18)), nn.Dropout2d(0.1))
        self.classifier = nn.Conv2d(512, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        logits = self.classifier(self.aspp(self.backbone(x)))
        return F.interpolate(logits, size=x.shape[-2:], mode="bilinear", align_corners=True)


def build() -> nn.Module:
    return MobileViTv2DeepLab()
