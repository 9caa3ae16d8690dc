"""LEDNet (Wang et al., "LEDNet: A Lightweight Encoder-Decoder Network for Real-time Semantic Segmentation", 2019).

Input 512x512. Split-shuffle blocks of factorised convolutions, attention pyramid as decoder.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIZE = (512, 512)


def split(x: Tensor) -> tuple[Tensor, Tensor]:
    c = int(x.size()[1])
    c1 = round(c * 0.5)
    return x[:, :c1, :, :].contiguous(), x[:, c1:, :, :].contiguous()


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    batchsize, num_channels, height, width = x.data.size()
    channels_per_group = num_channels // groups
    x = x.view(batchsize, groups, channels_per_group, height, width)
    x = torch.transpose(x, 1, 2).contiguous()
    return x.view(batchsize, -1, height, width)


def factorised(channels: int, dilation: int, tall_first: bool) -> list[nn.Module]:
    """A 3x1 and a 1x3 convolution in either order, with batch normalisation after both."""
    d = dilation
    tall = nn.Conv2d(channels, channels, (3, 1), padding=(d, 0), dilation=(d, 1), bias=True)
    wide = nn.Conv2d(channels, channels, (1, 3), padding=(0, d), dilation=(1, d), bias=True)
    first, second = (tall, wide) if tall_first else (wide, tall)
    return [first, nn.ReLU(inplace=True), second, nn.BatchNorm2d(channels, eps=1e-3)]


class SplitShuffle(nn.Module):
    def __init__(self, channels: int, dropout: float, dilation: int) -> None:
        super().__init__()
        half = channels // 2
        self.left, self.right = (
            nn.Sequential(*factorised(half, 1, tall), nn.ReLU(inplace=True), *factorised(half, dilation, tall))
            for tall in (True, False)
        )
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x1, x2 = split(x)
        out = torch.cat((self.dropout(self.left(x1)), self.dropout(self.right(x2))), 1)
        return channel_shuffle(F.relu(x + out, inplace=True), 2)


class Downsampler(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs - inputs, (3, 3), stride=2, padding=1, bias=True)
        self.pool = nn.MaxPool2d(2, stride=2)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x1, x2 = self.pool(x), self.conv(x)
        diff_y, diff_x = x2.size()[2] - x1.size()[2], x2.size()[3] - x1.size()[3]
        x1 = F.pad(x1, [diff_x // 2, diff_x - diff_x // 2, diff_y // 2, diff_y - diff_y // 2])
        return self.relu(self.bn(torch.cat([x2, x1], 1)))


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs, eps=1e-3), nn.ReLU(inplace=True))


def resize(x: Tensor, height: int, width: int) -> Tensor:
    return F.interpolate(x, size=(height, width), mode="bilinear", align_corners=True)


class AttentionPyramid(nn.Module):
    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.branch1 = nn.Sequential(nn.AdaptiveAvgPool2d(1), conv(inputs, classes, 1))
        self.mid = conv(inputs, classes, 1)
        self.down1 = conv(inputs, 1, 7, 2)
        self.down2 = conv(1, 1, 5, 2)
        self.down3 = nn.Sequential(conv(1, 1, 3, 2), conv(1, 1, 3))
        self.conv2 = conv(1, 1, 5)
        self.conv1 = conv(1, 1, 7)

    def forward(self, x: Tensor) -> Tensor:
        h, w = x.size()[2], x.size()[3]
        b1 = resize(self.branch1(x), h, w)
        mid = self.mid(x)
        x1 = self.down1(x)
        x2 = self.down2(x1)
        x3 = resize(self.down3(x2), h // 4, w // 4)
        x = resize(self.conv2(x2) + x3, h // 2, w // 2)
        x = resize(x + self.conv1(x1), h, w)
        return torch.mul(x, mid) + b1


class LEDNet(nn.Module):
    def __init__(self, classes: int = 20) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            Downsampler(3, 32),
            *(SplitShuffle(32, 0.03, 1) for _ in range(3)),
            Downsampler(32, 64),
            *(SplitShuffle(64, 0.03, 1) for _ in range(2)),
            Downsampler(64, 128),
            *(SplitShuffle(128, 0.3, dilation) for dilation in (1, 2, 5, 9, 2, 5, 9, 17)),
        )
        self.decoder = AttentionPyramid(128, classes)

    def forward(self, x: Tensor) -> Tensor:
        return resize(self.decoder(self.encoder(x)), x.size(2), x.size(3))


def build() -> nn.Module:
    return LEDNet()
