"""nnU-Net (Isensee et al., "nnU-Net: Self-adapting Framework for U-Net-Based Medical Image Segmentation", 2018).

Its 2D U-Net for 256x256: seven stages, strided convolutions down, transposed ones up, instance normalisation.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

SIZE = (256, 256)
FEATURES = (32, 64, 128, 256, 512, 512, 512)


class ConvDropoutNormReLU(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=True)
        self.norm = nn.InstanceNorm2d(outputs, eps=1e-5, affine=True)
        self.nonlin = nn.LeakyReLU(negative_slope=0.01, inplace=True)
        self.all_modules = nn.Sequential(self.conv, self.norm, self.nonlin)

    def forward(self, x: Tensor) -> Tensor:
        return self.all_modules(x)


def stage(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(ConvDropoutNormReLU(inputs, outputs, stride), ConvDropoutNormReLU(outputs, outputs))


class PlainConvUNet(nn.Module):
    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        inputs = (3, *FEATURES[:-1])
        self.encoder = nn.ModuleList(
            stage(before, after, 1 if index == 0 else 2)
            for index, (before, after) in enumerate(zip(inputs, FEATURES, strict=True))
        )
        pairs = list(zip(FEATURES[::-1], FEATURES[-2::-1], strict=False))
        self.transpconvs = nn.ModuleList(nn.ConvTranspose2d(below, skip, 2, 2, bias=True) for below, skip in pairs)
        self.decoder = nn.ModuleList(stage(2 * skip, skip) for _, skip in pairs)
        self.seg_layers = nn.ModuleList(nn.Conv2d(skip, classes, 1, bias=True) for _, skip in pairs)
        self.deep_supervision = False

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        skips = []
        for down in self.encoder:
            x = down(x)
            skips.append(x)
        results = []
        last = len(self.decoder) - 1
        for index, (up, block) in enumerate(zip(self.transpconvs, self.decoder, strict=True)):
            x = block(torch.cat((up(x), skips[-(index + 2)]), 1))
            if self.deep_supervision or index == last:
                results.append(self.seg_layers[index](x))
        return results[::-1] if self.deep_supervision else results[0]


def build() -> nn.Module:
    return PlainConvUNet()
