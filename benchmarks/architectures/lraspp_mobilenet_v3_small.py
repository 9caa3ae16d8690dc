"""LR-ASPP on MobileNetV3-Small (Howard et al., "Searching for MobileNetV3", 2019), at 512x512.

The last stage is dilated instead of strided.
"""

from __future__ import annotations

import torch.nn.functional as F
from architectures._channels import divisible
from torch import Tensor, nn

SIZE = (512, 512)
# kernel, expanded, outputs, squeeze-and-excitation, hard-swish, stride, dilation
SETTINGS = (
    (3, 16, 16, True, False, 2, 1),
    (3, 72, 24, False, False, 2, 1),
    (3, 88, 24, False, False, 1, 1),
    (5, 96, 40, True, True, 2, 1),
    (5, 240, 40, True, True, 1, 1),
    (5, 240, 40, True, True, 1, 1),
    (5, 120, 48, True, True, 1, 1),
    (5, 144, 48, True, True, 1, 1),
    (5, 288, 96, True, True, 1, 2),
    (5, 576, 96, True, True, 1, 2),
    (5, 576, 96, True, True, 1, 2),
)
LOW = 3  # the block whose result, at 1/8, joins the head


def conv(
    inputs: int,
    outputs: int,
    kernel: int = 1,
    stride: int = 1,
    groups: int = 1,
    dilation: int = 1,
    act: type[nn.Module] | None = nn.Hardswish,
) -> nn.Sequential:
    padding = (kernel - 1) // 2 * dilation
    layer = nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, groups, bias=False)
    norm = nn.BatchNorm2d(outputs, eps=0.001, momentum=0.01)
    return nn.Sequential(layer, norm, *([act(inplace=True)] if act else []))


class SqueezeExcitation(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = divisible(channels // 4, 8)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)
        self.activation = nn.ReLU()
        self.scale_activation = nn.Hardsigmoid()

    def forward(self, x: Tensor) -> Tensor:
        scale = self.fc2(self.activation(self.fc1(self.avgpool(x))))
        return self.scale_activation(scale) * x


class InvertedResidual(nn.Module):
    def __init__(self, inputs: int, setting: tuple[int, int, int, bool, bool, int, int]) -> None:
        super().__init__()
        kernel, expanded, outputs, squeeze, hard_swish, stride, dilation = setting
        act = nn.Hardswish if hard_swish else nn.ReLU
        self.use_res_connect = stride == 1 and inputs == outputs
        self.block = nn.Sequential(
            *([conv(inputs, expanded, act=act)] if expanded != inputs else []),
            conv(expanded, expanded, kernel, stride, expanded, dilation, act),
            *([SqueezeExcitation(expanded)] if squeeze else []),
            conv(expanded, outputs, act=None),
        )

    def forward(self, x: Tensor) -> Tensor:
        result = self.block(x)
        if self.use_res_connect:
            result += x
        return result


class LRASPP(nn.Module):
    def __init__(self, classes: int = 21, middle: int = 128) -> None:
        super().__init__()
        inputs = (16, *(setting[2] for setting in SETTINGS))
        blocks = [InvertedResidual(before, setting) for before, setting in zip(inputs, SETTINGS, strict=False)]
        self.features = nn.Sequential(conv(3, 16, 3, 2), *blocks, conv(96, 576))
        self.cbr = nn.Sequential(nn.Conv2d(576, middle, 1, bias=False), nn.BatchNorm2d(middle), nn.ReLU(inplace=True))
        self.scale = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(576, middle, 1, bias=False), nn.Sigmoid())
        self.low_classifier = nn.Conv2d(24, classes, 1)
        self.high_classifier = nn.Conv2d(middle, classes, 1)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        high = image
        for index, feature in enumerate(self.features):
            high = feature(high)
            if index == LOW:
                low = high
        x = self.cbr(high)
        s = self.scale(high)
        x = x * s
        x = F.interpolate(x, size=low.shape[-2:], mode="bilinear", align_corners=False)
        out = self.low_classifier(low) + self.high_classifier(x)
        return {"out": F.interpolate(out, size=image.shape[-2:], mode="bilinear", align_corners=False)}


def build() -> nn.Module:
    return LRASPP()
