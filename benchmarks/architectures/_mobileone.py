"""A U-Net with a MobileOne-S0 encoder (Vasu et al., "MobileOne: An Improved One Millisecond Mobile Backbone", 2022).

The form of MobileOne's blocks, with one branch or several, is an argument.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from architectures._convolutions import ConvBNReLU
from torch import Tensor, nn

STAGES = ((2, 48), (8, 128), (10, 256), (1, 1024))  # number of blocks, channels
DECODER = (256, 128, 64, 32, 16)


class MobileOne(nn.Module):
    """`block` makes a convolution from input channels, output channels, kernel, stride and groups."""

    def __init__(self, block: Callable[[int, int, int, int, int], nn.Module]) -> None:
        super().__init__()
        self.stage0 = block(3, 48, 3, 2, 1)
        self.stages = nn.ModuleList()
        inputs = 48
        for count, outputs in STAGES:
            blocks = []
            for index in range(count):
                depthwise = block(inputs, inputs, 3, 2 if index == 0 else 1, inputs)
                blocks += [depthwise, block(inputs, outputs, 1, 1, 1)]
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
        self.conv1 = ConvBNReLU(inputs + skip, outputs)
        self.conv2 = ConvBNReLU(outputs, outputs)

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        if skip is not None:
            x = torch.cat([x, skip], dim=1)
        return self.conv2(self.conv1(x))


class MobileOneUNet(nn.Module):
    def __init__(self, block: Callable[[int, int, int, int, int], nn.Module], classes: int = 2) -> None:
        super().__init__()
        self.encoder = MobileOne(block)
        skips = (256, 128, 48, 48, 0)
        inputs = (1024, *DECODER[:-1])
        self.blocks = nn.ModuleList(DecoderBlock(*sizes) for sizes in zip(inputs, skips, DECODER, strict=True))
        self.segmentation_head = nn.Conv2d(DECODER[-1], classes, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        head, *skips = self.encoder(x)[1:][::-1]
        for decoder, skip in zip(self.blocks, [*skips, None], strict=True):
            head = decoder(head, skip)
        return self.segmentation_head(head)
