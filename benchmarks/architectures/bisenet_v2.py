"""BiSeNetV2 (Yu et al., "BiSeNet V2: Bilateral Network with Guided Aggregation for Real-time Semantic Segmentation",
2020), at 256x256, without the heads for training.
"""

from __future__ import annotations

import torch
from architectures._convolutions import ConvBN, ConvBNReLU
from torch import Tensor, nn

SIZE = (256, 256)


def depthwise(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """Each input channel makes outputs / inputs channels."""
    return ConvBN(inputs, outputs, 3, stride, inputs)


class Detail(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            nn.Sequential(ConvBNReLU(3, 64, 3, 2), ConvBNReLU(64, 64)),
            nn.Sequential(ConvBNReLU(64, 64, 3, 2), ConvBNReLU(64, 64), ConvBNReLU(64, 64)),
            nn.Sequential(ConvBNReLU(64, 128, 3, 2), ConvBNReLU(128, 128), ConvBNReLU(128, 128)),
        )


class Stem(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = ConvBNReLU(3, 16, 3, 2)
        self.left = nn.Sequential(ConvBNReLU(16, 8, 1), ConvBNReLU(8, 16, 3, 2))
        self.right = nn.MaxPool2d(kernel_size=3, stride=2, padding=1, ceil_mode=False)
        self.fuse = ConvBNReLU(32, 16)

    def forward(self, x: Tensor) -> Tensor:
        feat = self.conv(x)
        return self.fuse(torch.cat([self.left(feat), self.right(feat)], dim=1))


class GatherExpansion(nn.Module):
    """Inverted bottleneck whose depthwise convolution expands the channels six times."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        middle = inputs * 6
        self.conv1 = ConvBNReLU(inputs, inputs)
        if stride == 1:
            self.dwconv = depthwise(inputs, middle)
            self.shortcut = nn.Identity()
        else:
            self.dwconv = nn.Sequential(depthwise(inputs, middle, 2), depthwise(middle, middle))
            self.shortcut = nn.Sequential(depthwise(inputs, inputs, 2), ConvBN(inputs, outputs, 1))
        self.conv2 = ConvBN(middle, outputs, 1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        feat = self.conv2(self.relu(self.dwconv(self.conv1(x))))
        return self.relu(feat + self.shortcut(x))


class ContextEmbedding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(128)
        self.conv_gap = ConvBNReLU(128, 128, 1)
        self.conv_last = ConvBNReLU(128, 128)

    def forward(self, x: Tensor) -> Tensor:
        feat = torch.mean(x, dim=(2, 3), keepdim=True)
        feat = self.conv_gap(self.bn(feat))
        return self.conv_last(feat + x)


class Semantic(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            Stem(),
            nn.Sequential(GatherExpansion(16, 32, 2), GatherExpansion(32, 32)),
            nn.Sequential(GatherExpansion(32, 64, 2), GatherExpansion(64, 64)),
            nn.Sequential(GatherExpansion(64, 128, 2), *(GatherExpansion(128, 128) for _ in range(3))),
            ContextEmbedding(),
        )


class GuidedAggregation(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left1 = nn.Sequential(depthwise(128, 128), nn.Conv2d(128, 128, 1, bias=False))
        self.left2 = nn.Sequential(
            nn.Conv2d(128, 128, 3, 2, 1, bias=False), nn.BatchNorm2d(128), nn.AvgPool2d(3, 2, 1, ceil_mode=False)
        )
        self.right1 = nn.Sequential(nn.Conv2d(128, 128, 3, 1, 1, bias=False), nn.BatchNorm2d(128))
        self.right2 = nn.Sequential(depthwise(128, 128), nn.Conv2d(128, 128, 1, bias=False))
        self.up1 = nn.Upsample(scale_factor=4)
        self.up2 = nn.Upsample(scale_factor=4)
        self.conv = ConvBNReLU(128, 128)

    def forward(self, detail: Tensor, semantic: Tensor) -> Tensor:
        right1 = self.up1(self.right1(semantic))
        left = self.left1(detail) * torch.sigmoid(right1)
        right = self.left2(detail) * torch.sigmoid(self.right2(semantic))
        return self.conv(left + self.up2(right))


class BiSeNetV2(nn.Module):
    def __init__(self, classes: int = 19) -> None:
        super().__init__()
        self.detail = Detail()
        self.segment = Semantic()
        self.bga = GuidedAggregation()
        self.head = nn.Sequential(
            ConvBNReLU(128, 1024),
            nn.Dropout(0.1),
            nn.Conv2d(1024, classes, 1),
            nn.Upsample(scale_factor=8, mode="bilinear", align_corners=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.bga(self.detail(x), self.segment(x)))


def build() -> nn.Module:
    return BiSeNetV2()
