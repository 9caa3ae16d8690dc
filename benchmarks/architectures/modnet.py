"""MODNet (Ke et al., "MODNet: Real-Time Trimap-Free Portrait Matting via Objective Decomposition", 2020), at 256x256.

MobileNetV2; half of the channels are batch-normalised, half instance-normalised. Returns the matte (1, 1, H, W).
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from architectures._convolutions import ConvBN
from architectures._mobilenet import InvertedResidual
from torch import Tensor, nn

SIZE = (256, 256)
ENCODER = (16, 24, 32, 96, 1280)  # channels at 1/2, 1/4, 1/8, 1/16, 1/32
SETTINGS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


class IBNorm(nn.Module):
    """Batch normalisation of the first half of the channels, instance normalisation of the others."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.batch_channels = channels // 2
        self.batch = nn.BatchNorm2d(self.batch_channels, affine=True)
        self.instance = nn.InstanceNorm2d(channels - self.batch_channels, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        batch = self.batch(x[:, : self.batch_channels, ...].contiguous())
        instance = self.instance(x[:, self.batch_channels :, ...].contiguous())
        return torch.cat((batch, instance), 1)


class ConvIBN(nn.Sequential):
    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, padding: int = 0, plain: bool = False
    ) -> None:
        conv = nn.Conv2d(inputs, outputs, kernel, stride, padding)
        super().__init__(conv) if plain else super().__init__(conv, IBNorm(outputs), nn.ReLU(inplace=True))


def mobilenet_v2() -> nn.Sequential:
    """Features 0 to 18 of MobileNetV2."""

    def plain(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Sequential:
        return nn.Sequential(*ConvBN(inputs, outputs, kernel, stride), nn.ReLU6(inplace=True))

    layers: list[nn.Module] = [plain(3, 32, 3, 2)]
    inputs = 32
    for expansion, outputs, count, stride in SETTINGS:
        for index in range(count):
            step = stride if index == 0 else 1
            layers.append(InvertedResidual(inputs, outputs, 3, step, expansion, partial(nn.ReLU6, inplace=True)))
            inputs = outputs
    return nn.Sequential(*layers, plain(320, 1280, 1, 1))


class SqueezeExcitation(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Sequential(
            nn.Linear(channels, channels // 4, bias=False),
            nn.ReLU(inplace=True),
            nn.Linear(channels // 4, channels, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        b, c, _, _ = x.size()
        weights = self.fc(self.pool(x).view(b, c)).view(b, c, 1, 1)
        return x * weights.expand_as(x)


def up(x: Tensor, factor: float = 2) -> Tensor:
    return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)


class MODNet(nn.Module):
    def __init__(self, hr: int = 32) -> None:
        super().__init__()
        c2, c4, c8, c16, c32 = ENCODER
        self.backbone = mobilenet_v2()
        # low resolution: semantics
        self.attention = SqueezeExcitation(c32)
        self.low16 = ConvIBN(c32, c16, 5, 1, 2)
        self.low8 = ConvIBN(c16, c8, 5, 1, 2)
        # high resolution: detail
        self.enc2 = ConvIBN(c2, hr, 1)
        self.image2 = ConvIBN(hr + 3, hr, 3, 2, 1)
        self.enc4 = ConvIBN(c4, hr, 1)
        self.merged4 = ConvIBN(2 * hr, 2 * hr, 3, 1, 1)
        self.high4 = nn.Sequential(
            ConvIBN(3 * hr + 3, 2 * hr, 3, 1, 1), ConvIBN(2 * hr, 2 * hr, 3, 1, 1), ConvIBN(2 * hr, hr, 3, 1, 1)
        )
        self.high2 = nn.Sequential(
            ConvIBN(2 * hr, 2 * hr, 3, 1, 1),
            ConvIBN(2 * hr, hr, 3, 1, 1),
            ConvIBN(hr, hr, 3, 1, 1),
            ConvIBN(hr, hr, 3, 1, 1),
        )
        # fusion
        self.fuse4 = ConvIBN(c8, hr, 5, 1, 2)
        self.fuse2 = ConvIBN(2 * hr, hr, 5, 1, 2)
        self.matte = nn.Sequential(ConvIBN(hr + 3, hr // 2, 3, 1, 1), ConvIBN(hr // 2, 1, 1, plain=True))

    def forward(self, image: Tensor) -> Tensor:
        features, x = {}, image
        for index, layer in enumerate(self.backbone):
            x = layer(x)
            features[index] = x
        enc2, enc4, enc32 = features[1], features[3], features[18]
        low8 = self.low8(up(self.low16(up(self.attention(enc32)))))

        image2 = F.interpolate(image, scale_factor=1 / 2, mode="bilinear", align_corners=False)
        image4 = F.interpolate(image, scale_factor=1 / 4, mode="bilinear", align_corners=False)
        enc2 = self.enc2(enc2)
        high4 = self.image2(torch.cat((image2, enc2), dim=1))
        high4 = self.merged4(torch.cat((high4, self.enc4(enc4)), dim=1))
        high4 = self.high4(torch.cat((high4, up(low8), image4), dim=1))
        high2 = self.high2(torch.cat((up(high4), enc2), dim=1))

        low2 = up(self.fuse4(up(low8)))
        fused2 = self.fuse2(torch.cat((low2, high2), dim=1))
        return torch.sigmoid(self.matte(torch.cat((up(fused2), image), dim=1)))


def build() -> nn.Module:
    return MODNet()
