"""PP-LiteSeg-T (Peng et al., "PP-LiteSeg: A Superior Real-Time Semantic Segmentation Model", 2022), at 512x512.

STDC1 backbone, simple pyramid pooling (1, 2, 4), unified attention fusion in its spatial form: mean and maximum over
channels of both inputs.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIZE = (512, 512)


class ConvBNReLU(nn.Sequential):
    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
        )


class ShortTermDenseConcatenation(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        half, quarter, eighth = outputs // 2, outputs // 4, outputs // 8
        self.first = ConvBNReLU(inputs, half, 1)
        self.second = ConvBNReLU(half, quarter)
        self.third = ConvBNReLU(quarter, eighth)
        self.fourth = ConvBNReLU(eighth, eighth)
        self.stride = stride
        if stride == 2:
            self.down = nn.Sequential(nn.Conv2d(half, half, 3, 2, 1, groups=half, bias=False), nn.BatchNorm2d(half))
            self.skip = nn.AvgPool2d(3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.first(x)
        if self.stride == 2:
            second, first = self.second(self.down(first)), self.skip(first)
        else:
            second = self.second(first)
        third = self.third(second)
        return torch.cat([first, second, third, self.fourth(third)], 1)


class Backbone(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(ConvBNReLU(3, 32, 3, 2), ConvBNReLU(32, 64, 3, 2))
        block, channels = ShortTermDenseConcatenation, (64, 256, 512, 1024)
        self.stages = nn.ModuleList(
            nn.Sequential(block(inputs, outputs, 2), block(outputs, outputs, 1))
            for inputs, outputs in pairwise(channels)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        results = [self.stem(x)]
        for stage in self.stages:
            results.append(stage(results[-1]))
        return results[1:]


class SimplePyramidPooling(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(bins), ConvBNReLU(inputs, outputs, 1)) for bins in (1, 2, 4)
        )
        self.out = ConvBNReLU(outputs, outputs, 3)

    def forward(self, x: Tensor) -> Tensor:
        out = None
        for stage in self.stages:
            up = F.interpolate(stage(x), x.shape[2:], mode="bilinear", align_corners=False)
            out = up if out is None else out + up
        return self.out(out)


class SpatialAttentionFusion(nn.Module):
    """Weights the detailed map and the upsampled one by one number per pixel."""

    def __init__(self, detailed: int, middle: int, outputs: int) -> None:
        super().__init__()
        self.detailed = ConvBNReLU(detailed, middle)
        self.out = ConvBNReLU(middle, outputs)
        self.attention = nn.Sequential(ConvBNReLU(4, 2), nn.Conv2d(2, 1, 3, padding=1, bias=False), nn.BatchNorm2d(1))

    def forward(self, high: Tensor, low: Tensor) -> Tensor:
        high = self.detailed(high)
        low = F.interpolate(low, high.shape[2:], mode="bilinear", align_corners=False)
        statistics = []
        for x in (high, low):
            statistics += [torch.mean(x, dim=1, keepdim=True), torch.max(x, dim=1, keepdim=True)[0]]
        weight = torch.sigmoid(self.attention(torch.cat(statistics, dim=1)))
        return self.out(high * weight + low * (1 - weight))


class PPLiteSeg(nn.Module):
    def __init__(self, classes: int = 19) -> None:
        super().__init__()
        self.backbone = Backbone()
        self.context = SimplePyramidPooling(1024, 128)
        self.fuse32 = SpatialAttentionFusion(1024, 128, 128)
        self.fuse16 = SpatialAttentionFusion(512, 128, 64)
        self.fuse8 = SpatialAttentionFusion(256, 64, 32)
        self.classifier = nn.Sequential(ConvBNReLU(32, 32), nn.Conv2d(32, classes, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        feat8, feat16, feat32 = self.backbone(x)
        out = self.fuse32(feat32, self.context(feat32))
        out = self.fuse8(feat8, self.fuse16(feat16, out))
        return F.interpolate(self.classifier(out), x.shape[2:], mode="bilinear", align_corners=False)


def build() -> nn.Module:
    return PPLiteSeg()
