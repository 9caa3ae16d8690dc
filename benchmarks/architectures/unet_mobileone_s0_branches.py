"""U-Net with a MobileOne-S0 encoder (Vasu et al., "MobileOne: An Improved One Millisecond Mobile Backbone", 2022).

Input 256x256. The form in which it is trained: each block has up to six branches, not merged yet. Decoder as in
segmentation_models.pytorch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from architectures._convolutions import ConvBN
from torch import Tensor, nn

SIZE = (256, 256)
STAGES = ((2, 48), (8, 128), (10, 256), (1, 1024))  # number of blocks, channels
DECODER = (256, 128, 64, 32, 16)


class MobileOneBlock(nn.Module):
    """Four convolutions, a 1x1 convolution beside those of 3x3, and a normalised shortcut where shapes allow it."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.rbr_skip = nn.BatchNorm2d(inputs) if inputs == outputs and stride == 1 else None
        self.rbr_conv = nn.ModuleList(ConvBN(inputs, outputs, kernel, stride, groups) for _ in range(4))
        self.rbr_scale = ConvBN(inputs, outputs, 1, stride, groups) if kernel > 1 else None
        self.activation = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        identity_out = 0
        if self.rbr_skip is not None:
            identity_out = self.rbr_skip(x)
        scale_out = 0
        if self.rbr_scale is not None:
            scale_out = self.rbr_scale(x)
        out = scale_out + identity_out
        for conv in self.rbr_conv:
            out += conv(x)
        return self.activation(out)


class MobileOne(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stage0 = MobileOneBlock(3, 48, 3, 2)
        self.stages = nn.ModuleList()
        inputs = 48
        for count, outputs in STAGES:
            blocks = []
            for index in range(count):
                blocks += [
                    MobileOneBlock(inputs, inputs, 3, 2 if index == 0 else 1, inputs),
                    MobileOneBlock(inputs, outputs, 1),
                ]
                inputs = outputs
            self.stages.append(nn.Sequential(*blocks))

    def forward(self, x: Tensor) -> list[Tensor]:
        features = [x, self.stage0(x)]
        for stage in self.stages:
            features.append(stage(features[-1]))
        return features


class DecoderBlock(nn.Module):
    def __init__(self, inputs: int, skip: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = self._conv(inputs + skip, outputs)
        self.conv2 = self._conv(outputs, outputs)

    @staticmethod
    def _conv(inputs: int, outputs: int) -> nn.Sequential:
        conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        if skip is not None:
            x = torch.cat([x, skip], dim=1)
        return self.conv2(self.conv1(x))


class Unet(nn.Module):
    def __init__(self, classes: int = 2) -> None:
        super().__init__()
        self.encoder = MobileOne()
        skips = (256, 128, 48, 48, 0)
        inputs = (1024, *DECODER[:-1])
        self.blocks = nn.ModuleList(DecoderBlock(*sizes) for sizes in zip(inputs, skips, DECODER, strict=True))
        self.segmentation_head = nn.Conv2d(DECODER[-1], classes, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        head, *skips = self.encoder(x)[1:][::-1]
        for decoder, skip in zip(self.blocks, [*skips, None], strict=True):
            head = decoder(head, skip)
        return self.segmentation_head(head)


def build() -> nn.Module:
    return Unet()
