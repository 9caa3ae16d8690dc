"""DeepLabV3+ on GhostNet 1.0 (Han et al., "GhostNet: More Features from Cheap Operations", 2020; Chen et al.,
"Encoder-Decoder with Atrous Separable Convolution for Semantic Image Segmentation", 2018), at 512x512.

Output stride 16; the pyramid and the decoder are separable, with 128 channels.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from architectures._channels import divisible
from torch import Tensor, nn

SIZE = (512, 512)
# kernel, expanded, outputs, squeeze-and-excitation ratio, stride; output stride 16: the last stage is not strided
SETTINGS = (
    (3, 16, 16, 0, 1),
    (3, 48, 24, 0, 2),
    (3, 72, 24, 0, 1),
    (5, 72, 40, 0.25, 2),
    (5, 120, 40, 0.25, 1),
    (3, 240, 80, 0, 2),
    (3, 200, 80, 0, 1),
    (3, 184, 80, 0, 1),
    (3, 184, 80, 0, 1),
    (3, 480, 112, 0.25, 1),
    (3, 672, 112, 0.25, 1),
    (5, 672, 160, 0.25, 1),
    (5, 960, 160, 0, 1),
    (5, 960, 160, 0.25, 1),
    (5, 960, 160, 0, 1),
    (5, 960, 160, 0.25, 1),
)
LOW = 2  # the bottleneck whose result, at 1/4, joins the decoder


def hard_sigmoid(x: Tensor) -> Tensor:
    return F.relu6(x + 3.0) / 6.0


class SqueezeExcite(nn.Module):
    def __init__(self, channels: int, ratio: float) -> None:
        super().__init__()
        reduced = divisible(channels * ratio, 4)
        self.avg_pool = nn.AdaptiveAvgPool2d(1)
        self.conv_reduce = nn.Conv2d(channels, reduced, 1, bias=True)
        self.act1 = nn.ReLU(inplace=True)
        self.conv_expand = nn.Conv2d(reduced, channels, 1, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        x_se = self.conv_expand(self.act1(self.conv_reduce(self.avg_pool(x))))
        return x * hard_sigmoid(x_se)


class GhostModule(nn.Module):
    """Half of the channels by a convolution, the other half from these by a depthwise one."""

    def __init__(self, inputs: int, outputs: int, relu: bool) -> None:
        super().__init__()
        self.oup = outputs
        init = math.ceil(outputs / 2)

        def activation() -> nn.Module:
            return nn.ReLU(inplace=True) if relu else nn.Sequential()

        self.primary_conv = nn.Sequential(nn.Conv2d(inputs, init, 1, bias=False), nn.BatchNorm2d(init), activation())
        self.cheap_operation = nn.Sequential(
            nn.Conv2d(init, init, 3, 1, 1, groups=init, bias=False), nn.BatchNorm2d(init), activation()
        )

    def forward(self, x: Tensor) -> Tensor:
        x1 = self.primary_conv(x)
        x2 = self.cheap_operation(x1)
        out = torch.cat([x1, x2], dim=1)
        return out[:, : self.oup, :, :]


class GhostBottleneck(nn.Module):
    def __init__(self, inputs: int, kernel: int, middle: int, outputs: int, ratio: float, stride: int) -> None:
        super().__init__()
        padding = (kernel - 1) // 2
        self.ghost1 = GhostModule(inputs, middle, relu=True)
        self.down = None
        if stride > 1:
            depthwise = nn.Conv2d(middle, middle, kernel, stride, padding, groups=middle, bias=False)
            self.down = nn.Sequential(depthwise, nn.BatchNorm2d(middle))
        self.se = SqueezeExcite(middle, ratio) if ratio > 0 else None
        self.ghost2 = GhostModule(middle, outputs, relu=False)
        self.shortcut = nn.Sequential()
        if inputs != outputs or stride > 1:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, inputs, kernel, stride, padding, groups=inputs, bias=False),
                nn.BatchNorm2d(inputs),
                nn.Conv2d(inputs, outputs, 1, bias=False),
                nn.BatchNorm2d(outputs),
            )

    def forward(self, x: Tensor) -> Tensor:
        residual = x
        x = self.ghost1(x)
        if self.down is not None:
            x = self.down(x)
        if self.se is not None:
            x = self.se(x)
        x = self.ghost2(x)
        x += self.shortcut(residual)
        return x


def conv(inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> nn.Sequential:
    layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.ReLU())


def separable(inputs: int, outputs: int, dilation: int = 1) -> nn.Sequential:
    depthwise = nn.Conv2d(inputs, inputs, 3, padding=dilation, dilation=dilation, groups=inputs, bias=False)
    return nn.Sequential(depthwise, *conv(inputs, outputs))


class AtrousSpatialPyramidPooling(nn.Module):
    def __init__(self, inputs: int, outputs: int, rates: tuple[int, ...] = (6, 12, 18)) -> None:
        super().__init__()
        self.convs = nn.ModuleList([conv(inputs, outputs), *(separable(inputs, outputs, rate) for rate in rates)])
        self.pooling = nn.Sequential(nn.AdaptiveAvgPool2d(1), conv(inputs, outputs))
        self.project = nn.Sequential(conv((len(rates) + 2) * outputs, outputs), nn.Dropout(0.5))

    def forward(self, x: Tensor) -> Tensor:
        res = [each(x) for each in self.convs]
        res.append(F.interpolate(self.pooling(x), size=x.shape[-2:], mode="bilinear", align_corners=False))
        return self.project(torch.cat(res, dim=1))


class DeepLabV3Plus(nn.Module):
    def __init__(self, classes: int = 21, middle: int = 128) -> None:
        super().__init__()
        self.stem = conv(3, 16, 3, 2)
        inputs = (16, *(setting[2] for setting in SETTINGS))
        self.blocks = nn.ModuleList(
            GhostBottleneck(before, *setting) for before, setting in zip(inputs, SETTINGS, strict=False)
        )
        self.aspp = nn.Sequential(AtrousSpatialPyramidPooling(inputs[-1], middle), separable(middle, middle))
        self.low = conv(24, 48)
        self.decoder = separable(middle + 48, middle)
        self.classifier = nn.Conv2d(middle, classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.stem(image)
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index == LOW:
                low = x
        high = F.interpolate(self.aspp(x), scale_factor=4, mode="bilinear", align_corners=True)
        logits = self.classifier(self.decoder(torch.cat([high, self.low(low)], dim=1)))
        return F.interpolate(logits, scale_factor=4, mode="bilinear", align_corners=True)


def build() -> nn.Module:
    return DeepLabV3Plus()
