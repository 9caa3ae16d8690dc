"""Lite-HRNet-18 (Yu et al., "Lite-HRNet: A Lightweight High-Resolution Network", 2021), its iterative head, at 512x512.

Channels are weighted across resolutions: all maps are pooled to the smallest size. As in the public code, fusion adds
in place and counts the first map twice.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIZE = (512, 512)
CHANNELS = (40, 80, 160, 320)
STAGES = ((2, 2), (4, 3), (2, 4))  # modules and branches


def conv(
    inputs: int, outputs: int, kernel: int = 1, stride: int = 1, depthwise: bool = False, act: nn.Module | None = None
) -> nn.Sequential:
    layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=inputs if depthwise else 1, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), *([act] if act else []))


def separable(inputs: int, outputs: int, stride: int = 1, act: bool = True) -> nn.Sequential:
    pointwise = conv(inputs, outputs, act=nn.ReLU() if act else None)
    return nn.Sequential(conv(inputs, inputs, 3, stride, True), pointwise)


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    batch_size, num_channels, height, width = x.size()
    x = x.view(batch_size, groups, num_channels // groups, height, width)
    x = torch.transpose(x, 1, 2).contiguous()
    return x.view(batch_size, -1, height, width)


class SpatialWeighting(nn.Module):
    def __init__(self, channels: int, ratio: int = 4) -> None:
        super().__init__()
        self.global_avgpool = nn.AdaptiveAvgPool2d(1)
        self.conv1 = nn.Sequential(nn.Conv2d(channels, channels // ratio, 1), nn.ReLU())
        self.conv2 = nn.Sequential(nn.Conv2d(channels // ratio, channels, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.conv2(self.conv1(self.global_avgpool(x)))


class CrossResolutionWeighting(nn.Module):
    def __init__(self, channels: list[int], ratio: int) -> None:
        super().__init__()
        self.channels = channels
        total = sum(channels)
        self.conv1 = conv(total, total // ratio, act=nn.ReLU())
        self.conv2 = conv(total // ratio, total, act=nn.Sigmoid())

    def forward(self, x: list[Tensor]) -> list[Tensor]:
        mini_size = x[-1].size()[-2:]
        out = [F.adaptive_avg_pool2d(s, mini_size) for s in x[:-1]] + [x[-1]]
        out = self.conv2(self.conv1(torch.cat(out, dim=1)))
        weights = torch.split(out, self.channels, dim=1)
        return [s * F.interpolate(a, size=s.size()[-2:], mode="nearest") for s, a in zip(x, weights, strict=True)]


class ConditionalChannelWeighting(nn.Module):
    def __init__(self, channels: tuple[int, ...], ratio: int = 8) -> None:
        super().__init__()
        halves = [each // 2 for each in channels]
        self.cross_resolution_weighting = CrossResolutionWeighting(halves, ratio)
        self.depthwise_convs = nn.ModuleList(conv(half, half, 3, 1, True) for half in halves)
        self.spatial_weighting = nn.ModuleList(SpatialWeighting(half) for half in halves)

    def forward(self, x: list[Tensor]) -> list[Tensor]:
        halves = [s.chunk(2, dim=1) for s in x]
        x1, x2 = [s[0] for s in halves], [s[1] for s in halves]
        x2 = self.cross_resolution_weighting(x2)
        x2 = [dw(s) for s, dw in zip(x2, self.depthwise_convs, strict=True)]
        x2 = [sw(s) for s, sw in zip(x2, self.spatial_weighting, strict=True)]
        out = [torch.cat([s1, s2], dim=1) for s1, s2 in zip(x1, x2, strict=True)]
        return [channel_shuffle(s, 2) for s in out]


class LiteHRModule(nn.Module):
    """Two weighting blocks, then every resolution receives all others."""

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(ConditionalChannelWeighting(channels) for _ in range(2)))
        count = len(channels)
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(self._path(channels, source, target) for source in range(count)) for target in range(count)
        )
        self.relu = nn.ReLU()

    @staticmethod
    def _path(channels: tuple[int, ...], source: int, target: int) -> nn.Module:
        before, after = channels[source], channels[target]
        if source > target:
            return nn.Sequential(*conv(before, after), nn.Upsample(scale_factor=2 ** (source - target), mode="nearest"))
        downs = [separable(before, before, 2) for _ in range(target - source - 1)]
        return nn.Sequential(*downs, separable(before, after, 2, act=False)) if source < target else nn.Identity()

    def forward(self, x: list[Tensor]) -> list[Tensor]:
        out = self.layers(x)
        out_fuse = []
        for i, paths in enumerate(self.fuse_layers):
            y = out[0] if i == 0 else paths[0](out[0])
            for j, path in enumerate(paths):
                y += out[j] if i == j else path(out[j])
            out_fuse.append(self.relu(y))
        return out_fuse


class Stem(nn.Module):
    def __init__(self, channels: int = 32) -> None:
        super().__init__()
        half = channels // 2
        self.conv1 = conv(3, channels, 3, 2, act=nn.ReLU())
        self.branch1 = nn.Sequential(conv(half, half, 3, 2, True), conv(half, half, act=nn.ReLU()))
        self.expand_conv = conv(half, channels, act=nn.ReLU())
        self.depthwise_conv = conv(channels, channels, 3, 2, True)
        self.linear_conv = conv(channels, half, act=nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        x1, x2 = self.conv1(x).chunk(2, dim=1)
        x2 = self.linear_conv(self.depthwise_conv(self.expand_conv(x2)))
        return channel_shuffle(torch.cat((self.branch1(x1), x2), dim=1), 2)


class IterativeHead(nn.Module):
    """From the smallest map to the largest: each is projected and added, upsampled, to the next."""

    def __init__(self) -> None:
        super().__init__()
        outputs = (*CHANNELS[-2::-1], CHANNELS[0])
        self.projects = nn.ModuleList(separable(*pair) for pair in zip(CHANNELS[::-1], outputs, strict=True))

    def forward(self, x: list[Tensor]) -> Tensor:
        last = None
        for s, project in zip(x[::-1], self.projects, strict=True):
            if last is not None:
                s = s + F.interpolate(last, size=s.size()[-2:], mode="bilinear", align_corners=True)
            last = project(s)
        return last


class LiteHRNet(nn.Module):
    def __init__(self, classes: int = 19) -> None:
        super().__init__()
        self.stem = Stem()
        self.transitions, self.stages = nn.ModuleList(), nn.ModuleList()
        for modules, branches in STAGES:
            new = branches - 1
            first = [separable(32, CHANNELS[0])] if branches == 2 else []
            before = 32 if branches == 2 else CHANNELS[new - 1]
            self.transitions.append(nn.ModuleList([*first, separable(before, CHANNELS[new], 2)]))
            self.stages.append(nn.Sequential(*(LiteHRModule(CHANNELS[:branches]) for _ in range(modules))))
        self.head = IterativeHead()
        self.classifier = nn.Conv2d(CHANNELS[0], classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        x = [self.stem(image)]
        for transition, stage in zip(self.transitions, self.stages, strict=True):
            lowest = x[-1]
            x = [transition[0](x[0])] if len(transition) == 2 else x
            x = stage([*x, transition[-1](lowest)])
        logits = self.classifier(self.head(x))
        return F.interpolate(logits, size=image.shape[2:], mode="bilinear", align_corners=False)


def build() -> nn.Module:
    return LiteHRNet()
