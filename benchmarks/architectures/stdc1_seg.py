"""STDC1-Seg (Fan et al., "Rethinking BiSeNet For Real-time Semantic Segmentation", 2021), at 512x512.

The detail head and the two auxiliary heads exist only in training and are left out.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from architectures._convolutions import ConvBNReLU
from torch import Tensor, nn

SIZE = (512, 512)


class ShortTermDenseConcatenation(nn.Module):
    """Four convolutions in a row, each with fewer channels; their results are concatenated."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            [
                ConvBNReLU(inputs, outputs // 2, 1),
                ConvBNReLU(outputs // 2, outputs // 4),
                ConvBNReLU(outputs // 4, outputs // 8),
                ConvBNReLU(outputs // 8, outputs // 8),
            ]
        )
        self.stride = stride
        if stride == 2:
            half = outputs // 2
            self.down = nn.Sequential(nn.Conv2d(half, half, 3, 2, 1, groups=half, bias=False), nn.BatchNorm2d(half))
            self.skip = nn.AvgPool2d(kernel_size=3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.convs[0](x)
        results = [self.skip(first) if self.stride == 2 else first]
        value = self.down(first) if self.stride == 2 else first
        for conv in self.convs[1:]:
            value = conv(value)
            results.append(value)
        return torch.cat(results, dim=1)


class Backbone(nn.Module):
    """STDC1: maps at 1/8, 1/16 and 1/32."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(ConvBNReLU(3, 32, 3, 2), ConvBNReLU(32, 64, 3, 2))
        stages, inputs = [], 64
        for outputs in (256, 512, 1024):
            block = ShortTermDenseConcatenation
            stages.append(nn.Sequential(block(inputs, outputs, 2), block(outputs, outputs, 1)))
            inputs = outputs
        self.stages = nn.ModuleList(stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.stem(x)
        results = []
        for stage in self.stages:
            x = stage(x)
            results.append(x)
        return results


class AttentionRefinement(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = ConvBNReLU(inputs, outputs)
        self.attention = nn.Conv2d(outputs, outputs, 1, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        feat = self.conv(x)
        weights = F.avg_pool2d(feat, feat.size()[2:])
        weights = self.norm(self.attention(weights)).sigmoid()
        return torch.mul(feat, weights)


class FeatureFusion(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = ConvBNReLU(inputs, outputs, 1)
        self.reduce = nn.Conv2d(outputs, outputs // 4, 1, bias=False)
        self.expand = nn.Conv2d(outputs // 4, outputs, 1, bias=False)

    def forward(self, detail: Tensor, context: Tensor) -> Tensor:
        feat = self.conv(torch.cat([detail, context], dim=1))
        weights = F.avg_pool2d(feat, feat.size()[2:])
        weights = self.expand(F.relu(self.reduce(weights))).sigmoid()
        return torch.mul(feat, weights) + feat


class STDCSeg(nn.Module):
    def __init__(self, classes: int = 19) -> None:
        super().__init__()
        self.backbone = Backbone()
        self.context = ConvBNReLU(1024, 128, 1)
        self.refine16 = AttentionRefinement(512, 128)
        self.refine32 = AttentionRefinement(1024, 128)
        self.head16 = ConvBNReLU(128, 128)
        self.head32 = ConvBNReLU(128, 128)
        self.fusion = FeatureFusion(256 + 128, 256)
        self.classifier = nn.Sequential(ConvBNReLU(256, 256), nn.Conv2d(256, classes, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.size()[2:]
        feat8, feat16, feat32 = self.backbone(x)
        mean = self.context(F.avg_pool2d(feat32, feat32.size()[2:]))
        mean = F.interpolate(mean, feat32.size()[2:], mode="nearest")
        up = self.refine32(feat32) + mean
        up = self.head32(F.interpolate(up, feat16.size()[2:], mode="nearest"))
        up = self.refine16(feat16) + up
        up = self.head16(F.interpolate(up, feat8.size()[2:], mode="nearest"))
        logits = self.classifier(self.fusion(feat8, up))
        return F.interpolate(logits, (height, width), mode="bilinear", align_corners=True)


def build() -> nn.Module:
    return STDCSeg()
