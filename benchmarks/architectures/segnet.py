"""SegNet (Badrinarayanan, Kendall, Cipolla, "SegNet: A Deep Convolutional Encoder-Decoder Architecture", 2015).

Input 256x256. VGG16's convolutions with batch normalisation; the decoder mirrors them and unpools with the
encoder's indices.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

SIZE = (256, 256)
STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # channels and number of convolutions


def conv(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class SegNet(nn.Module):
    def __init__(self, classes: int = 12) -> None:
        super().__init__()
        encoder, decoder = [], []
        inputs = 3
        for channels, count in STAGES:
            encoder.append(nn.Sequential(conv(inputs, channels), *(conv(channels, channels) for _ in range(count - 1))))
            last = conv(channels, inputs) if inputs > 3 else nn.Conv2d(channels, classes, 3, padding=1)
            decoder.append(nn.Sequential(*(conv(channels, channels) for _ in range(count - 1)), last))
            inputs = channels
        self.encoder = nn.ModuleList(encoder)
        self.decoder = nn.ModuleList(decoder[::-1])

    def forward(self, x: Tensor) -> Tensor:
        pooled = []
        for stage in self.encoder:
            x = stage(x)
            size = x.size()
            x, indices = F.max_pool2d(x, kernel_size=2, stride=2, return_indices=True)
            pooled.append((indices, size))
        for stage, (indices, size) in zip(self.decoder, reversed(pooled), strict=True):
            x = stage(F.max_unpool2d(x, indices, kernel_size=2, stride=2, output_size=size))
        return x


def build() -> nn.Module:
    return SegNet()
