"""RegSeg (Gao, "Rethinking Dilated Convolution for Real-time Semantic Segmentation", 2021), at 512x512.

RegNet-like blocks whose channel groups have different dilations (1 and 2, 4, 14), squeeze-and-excitation.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from architectures._convolutions import ConvBNReLU
from torch import Tensor, nn

SIZE = (512, 512)
GROUP_WIDTH = 16
DILATIONS = ((1,), (1, 2), *[(1, 4)] * 4, *[(1, 14)] * 7)


class SEModule(nn.Module):
    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.avg_pool = nn.AdaptiveAvgPool2d(1)
        self.conv1 = nn.Conv2d(channels, squeezed, 1, bias=True)
        self.act1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(squeezed, channels, 1, bias=True)
        self.act2 = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        y = self.avg_pool(x)
        y = self.act2(self.conv2(self.act1(self.conv1(y))))
        return x * y


class DilatedConv(nn.Module):
    """The channels are split; each part has its own dilation."""

    def __init__(self, channels: int, dilations: tuple[int, ...], stride: int) -> None:
        super().__init__()
        self.num_splits = len(dilations)
        part = channels // self.num_splits
        groups = part // GROUP_WIDTH
        self.convs = nn.ModuleList(
            nn.Conv2d(part, part, 3, stride, padding=d, dilation=d, groups=groups, bias=False) for d in dilations
        )

    def forward(self, x: Tensor) -> Tensor:
        parts = torch.tensor_split(x, self.num_splits, dim=1)
        return torch.cat([conv(part) for conv, part in zip(self.convs, parts, strict=True)], dim=1)


class DBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, dilations: tuple[int, ...] = (1,), stride: int = 1) -> None:
        super().__init__()
        self.conv1 = ConvBNReLU(inputs, outputs, 1)
        if len(dilations) == 1:
            groups, d = outputs // GROUP_WIDTH, dilations[0]
            self.conv2 = nn.Conv2d(outputs, outputs, 3, stride, d, d, groups, bias=False)
        else:
            self.conv2 = DilatedConv(outputs, dilations, stride)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.act = nn.ReLU(inplace=True)
        self.se = SEModule(outputs, inputs // 4)
        self.conv3 = nn.Sequential(nn.Conv2d(outputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
        self.shortcut = None
        if stride != 1 or inputs != outputs:
            pool = [nn.AvgPool2d(2, 2, ceil_mode=True)] if stride != 1 else []
            project = nn.Conv2d(inputs, outputs, 1, bias=False)
            self.shortcut = nn.Sequential(*pool, project, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.shortcut is None else self.shortcut(x)
        x = self.act(self.bn2(self.conv2(self.conv1(x))))
        x = self.conv3(self.se(x))
        return self.act(x + shortcut)


class Decoder(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.head16 = ConvBNReLU(320, 128, 1)
        self.head8 = ConvBNReLU(128, 128, 1)
        self.head4 = ConvBNReLU(48, 8, 1)
        self.conv8 = ConvBNReLU(128, 64, 3)
        self.conv4 = ConvBNReLU(64 + 8, 64, 3)
        self.classifier = nn.Conv2d(64, classes, 1)

    def forward(self, x4: Tensor, x8: Tensor, x16: Tensor) -> Tensor:
        x16, x8, x4 = self.head16(x16), self.head8(x8), self.head4(x4)
        x16 = F.interpolate(x16, size=x8.shape[-2:], mode="bilinear", align_corners=False)
        x8 = self.conv8(x8 + x16)
        x8 = F.interpolate(x8, size=x4.shape[-2:], mode="bilinear", align_corners=False)
        return self.classifier(self.conv4(torch.cat((x8, x4), dim=1)))


class RegSeg(nn.Module):
    def __init__(self, classes: int = 19) -> None:
        super().__init__()
        self.stem = ConvBNReLU(3, 32, 3, 2)
        self.stage4 = DBlock(32, 48, stride=2)
        self.stage8 = nn.Sequential(DBlock(48, 128, stride=2), DBlock(128, 128), DBlock(128, 128))
        self.stage16 = nn.Sequential(
            DBlock(128, 256, stride=2),
            *(DBlock(256, 256, dilations) for dilations in DILATIONS[:-1]),
            DBlock(256, 320, DILATIONS[-1]),
        )
        self.decoder = Decoder(classes)

    def forward(self, image: Tensor) -> Tensor:
        x4 = self.stage4(self.stem(image))
        x8 = self.stage8(x4)
        logits = self.decoder(x4, x8, self.stage16(x8))
        return F.interpolate(logits, size=image.shape[-2:], mode="bilinear", align_corners=False)


def build() -> nn.Module:
    return RegSeg()
