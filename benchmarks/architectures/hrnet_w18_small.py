"""HRNetV2-W18-Small (Wang et al., "Deep High-Resolution Representation Learning for Visual Recognition", 2019).

Input 512x512. Version 2 of the small network; its head concatenates all four resolutions (without object context).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from architectures._convolutions import ConvBN, ConvBNReLU
from torch import Tensor, nn

SIZE = (512, 512)
CHANNELS = (18, 36, 72, 144)
MODULES = (1, 3, 2)  # in stages 2, 3 and 4, which have 2, 3 and 4 branches
BLOCKS = 2


class BasicBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = ConvBNReLU(channels, channels)
        self.conv2 = ConvBN(channels, channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv2(self.conv1(x))
        out = out + x
        return self.relu(out)


class Bottleneck(nn.Module):
    def __init__(self, inputs: int, middle: int = 64) -> None:
        super().__init__()
        outputs = 4 * middle
        self.convs = nn.Sequential(
            ConvBNReLU(inputs, middle, 1), ConvBNReLU(middle, middle), ConvBN(middle, outputs, 1)
        )
        self.downsample = ConvBN(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out = self.convs(x)
        out += self.downsample(x)
        return self.relu(out)


class HighResolutionModule(nn.Module):
    def __init__(self, branches: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(*(BasicBlock(channels) for _ in range(BLOCKS))) for channels in CHANNELS[:branches]
        )
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(self._path(source, target) for source in range(branches)) for target in range(branches)
        )
        self.relu = nn.ReLU(inplace=True)

    @staticmethod
    def _path(source: int, target: int) -> nn.Module:
        before, after = CHANNELS[source], CHANNELS[target]
        if source > target:
            return ConvBN(before, after, 1)
        downs = [ConvBNReLU(before, before, 3, 2) for _ in range(target - source - 1)]
        return nn.Sequential(*downs, ConvBN(before, after, 3, 2)) if source < target else nn.Identity()

    def forward(self, x: list[Tensor]) -> list[Tensor]:
        x = [branch(each) for branch, each in zip(self.branches, x, strict=True)]
        x_fuse = []
        for i, paths in enumerate(self.fuse_layers):
            y = x[0] if i == 0 else paths[0](x[0])
            for j in range(1, len(x)):
                if i == j:
                    y = y + x[j]
                elif j > i:
                    height, width = x[i].shape[-2:]
                    y = y + F.interpolate(paths[j](x[j]), size=[height, width], mode="bilinear", align_corners=True)
                else:
                    y = y + paths[j](x[j])
            x_fuse.append(self.relu(y))
        return x_fuse


class HRNet(nn.Module):
    def __init__(self, classes: int = 19) -> None:
        super().__init__()
        self.stem = nn.Sequential(ConvBNReLU(3, 64, 3, 2), ConvBNReLU(64, 64, 3, 2))
        self.layer1 = nn.Sequential(Bottleneck(64), Bottleneck(256))
        self.transition1 = nn.ModuleList([ConvBNReLU(256, CHANNELS[0]), ConvBNReLU(256, CHANNELS[1], 3, 2)])
        self.transition2 = ConvBNReLU(CHANNELS[1], CHANNELS[2], 3, 2)
        self.transition3 = ConvBNReLU(CHANNELS[2], CHANNELS[3], 3, 2)
        self.stages = nn.ModuleList(
            nn.Sequential(*(HighResolutionModule(index + 2) for _ in range(modules)))
            for index, modules in enumerate(MODULES)
        )
        total = sum(CHANNELS)
        self.last_layer = nn.Sequential(
            nn.Conv2d(total, total, 1), nn.BatchNorm2d(total), nn.ReLU(inplace=True), nn.Conv2d(total, classes, 1)
        )

    def forward(self, image: Tensor) -> Tensor:
        x = self.layer1(self.stem(image))
        x = self.stages[0]([transition(x) for transition in self.transition1])
        x = self.stages[1]([*x, self.transition2(x[-1])])
        x = self.stages[2]([*x, self.transition3(x[-1])])
        height, width = x[0].size(2), x[0].size(3)
        ups = [F.interpolate(each, size=(height, width), mode="bilinear", align_corners=True) for each in x[1:]]
        logits = self.last_layer(torch.cat([x[0], *ups], 1))
        return F.interpolate(logits, size=image.shape[-2:], mode="bilinear", align_corners=True)


def build() -> nn.Module:
    return HRNet()
