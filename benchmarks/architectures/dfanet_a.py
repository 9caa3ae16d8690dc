"""DFANet-A (Li et al., "DFANet: Deep Feature Aggregation for Real-Time Semantic Segmentation", 2019), at 512x512.

Three Xception backbones, each fed with the one before. The paper states 7.8 M parameters; built with the channels of
its tables, the network has 1.8 M.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIZE = (512, 512)


def conv(inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> nn.Sequential:
    layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.ReLU())


def separable(inputs: int, outputs: int, stride: int = 1) -> list[nn.Module]:
    return [
        nn.ReLU(),
        nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False),
        nn.Conv2d(inputs, outputs, 1, bias=False),
        nn.BatchNorm2d(outputs),
    ]


class Block(nn.Module):
    """Three separable convolutions and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.skip = None
        if inputs != outputs or stride != 1:
            self.skip = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        middle = outputs // 4
        self.rep = nn.Sequential(
            *separable(inputs, middle), *separable(middle, middle), *separable(middle, outputs, stride)
        )

    def forward(self, x: Tensor) -> Tensor:
        skip = x if self.skip is None else self.skip(x)
        return self.rep(x) + skip


def stage(inputs: int, outputs: int, count: int) -> nn.Sequential:
    return nn.Sequential(Block(inputs, outputs, 2), *(Block(outputs, outputs) for _ in range(count - 1)))


class FullyConnectedAttention(nn.Module):
    def __init__(self, channels: int = 192, hidden: int = 1000) -> None:
        super().__init__()
        self.avg_pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, hidden, bias=False)
        self.conv = conv(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        b, c, _, _ = x.size()
        y = self.avg_pool(x).view(b, c)
        y = self.fc(y).view(b, -1, 1, 1)
        return x * self.conv(y).expand_as(x)


class Backbone(nn.Module):
    """All but the first also take the maps of the backbone before."""

    def __init__(self, inputs: int, skips: tuple[int, int]) -> None:
        super().__init__()
        self.enc2 = stage(inputs, 48, 4)
        self.enc3 = stage(48 + skips[0], 96, 6)
        self.enc4 = stage(96 + skips[1], 192, 4)
        self.fca = FullyConnectedAttention()

    def forward(self, x: Tensor, skips: list[Tensor] | None = None) -> list[Tensor]:
        enc2 = self.enc2(x)
        enc3 = self.enc3(enc2 if skips is None else torch.cat([enc2, skips[0]], 1))
        enc4 = self.enc4(enc3 if skips is None else torch.cat([enc3, skips[1]], 1))
        return [enc2, enc3, enc4, self.fca(enc4)]


def up(x: Tensor, factor: int) -> Tensor:
    return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=True)


class DFANet(nn.Module):
    def __init__(self, classes: int = 19) -> None:
        super().__init__()
        self.conv1 = conv(3, 8, 3, 2)
        self.backbones = nn.ModuleList([Backbone(8, (0, 0)), Backbone(240, (96, 192)), Backbone(240, (96, 192))])
        self.shallow = nn.ModuleList(conv(48, 32) for _ in range(3))
        self.add = conv(32, 32)
        self.deep = nn.ModuleList(conv(192, 32) for _ in range(3))
        self.classifier = nn.Conv2d(32, classes, 1, bias=False)

    def forward(self, image: Tensor) -> Tensor:
        results = [self.backbones[0](self.conv1(image))]
        for backbone in self.backbones[1:]:
            enc2, enc3, enc4, fca = results[-1]
            results.append(backbone(torch.cat([up(fca, 4), enc2], 1), [enc3, enc4]))
        total = self.shallow[0](results[0][0])
        for factor, project, result in zip((2, 4), self.shallow[1:], results[1:], strict=True):
            total = total + up(project(result[0]), factor)
        total = self.add(total)
        for factor, project, result in zip((4, 8, 16), self.deep, results, strict=True):
            total = total + up(project(result[3]), factor)
        return up(self.classifier(total), 4)


def build() -> nn.Module:
    return DFANet()
