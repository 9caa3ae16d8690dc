"""U2-Net (Qin et al., "U2-Net: Going Deeper with Nested U-Structure for Salient Object Detection", 2020).

Its small form, U2-Net-p, at 256x256; returns the fused saliency map and those of the six sides, as the
public network does.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIZE = (256, 256)


class REBNCONV(nn.Module):
    """Convolution, batch normalisation, ReLU."""

    def __init__(self, inputs: int = 3, outputs: int = 3, dirate: int = 1) -> None:
        super().__init__()
        self.conv_s1 = nn.Conv2d(inputs, outputs, 3, padding=1 * dirate, dilation=1 * dirate)
        self.bn_s1 = nn.BatchNorm2d(outputs)
        self.relu_s1 = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu_s1(self.bn_s1(self.conv_s1(x)))


def upsample_like(src: Tensor, tar: Tensor) -> Tensor:
    return F.interpolate(src, size=tar.shape[2:], mode="bilinear", align_corners=False)


class RSU(nn.Module):
    """A U-Net of `depth` levels inside a residual block."""

    def __init__(self, depth: int, inputs: int, outputs: int, middle: int = 16) -> None:
        super().__init__()
        self.rebnconvin = REBNCONV(inputs, outputs)
        self.encoder = nn.ModuleList(REBNCONV(outputs if i == 0 else middle, middle) for i in range(depth - 1))
        self.pool = nn.MaxPool2d(2, stride=2, ceil_mode=True)
        self.bottom = REBNCONV(middle, middle, dirate=2)
        self.decoder = nn.ModuleList(
            REBNCONV(middle * 2, outputs if i == 0 else middle) for i in reversed(range(depth - 1))
        )

    def forward(self, x: Tensor) -> Tensor:
        hxin = self.rebnconvin(x)
        hx, skips = hxin, []
        for i, conv in enumerate(self.encoder):
            hx = conv(hx if i == 0 else self.pool(hx))
            skips.append(hx)
        hx = self.bottom(hx)
        for i, conv in enumerate(self.decoder):
            skip = skips.pop()
            hx = conv(torch.cat((hx if i == 0 else upsample_like(hx, skip), skip), 1))
        return hx + hxin


class RSU4F(nn.Module):
    """Dilations 1, 2, 4, 8 instead of pooling."""

    def __init__(self, inputs: int, outputs: int, middle: int = 16) -> None:
        super().__init__()
        self.rebnconvin = REBNCONV(inputs, outputs)
        self.rebnconv1 = REBNCONV(outputs, middle)
        self.rebnconv2 = REBNCONV(middle, middle, dirate=2)
        self.rebnconv3 = REBNCONV(middle, middle, dirate=4)
        self.rebnconv4 = REBNCONV(middle, middle, dirate=8)
        self.rebnconv3d = REBNCONV(middle * 2, middle, dirate=4)
        self.rebnconv2d = REBNCONV(middle * 2, middle, dirate=2)
        self.rebnconv1d = REBNCONV(middle * 2, outputs)

    def forward(self, x: Tensor) -> Tensor:
        hxin = self.rebnconvin(x)
        hx1 = self.rebnconv1(hxin)
        hx2 = self.rebnconv2(hx1)
        hx3 = self.rebnconv3(hx2)
        hx4 = self.rebnconv4(hx3)
        hx3d = self.rebnconv3d(torch.cat((hx4, hx3), 1))
        hx2d = self.rebnconv2d(torch.cat((hx3d, hx2), 1))
        hx1d = self.rebnconv1d(torch.cat((hx2d, hx1), 1))
        return hx1d + hxin


class U2NetP(nn.Module):
    def __init__(self, out_ch: int = 1) -> None:
        super().__init__()
        self.encoder = nn.ModuleList(
            [RSU(7, 3, 64), *(RSU(depth, 64, 64) for depth in (6, 5, 4)), RSU4F(64, 64), RSU4F(64, 64)]
        )
        self.pool = nn.MaxPool2d(2, stride=2, ceil_mode=True)
        self.decoder = nn.ModuleList([RSU4F(128, 64), *(RSU(depth, 128, 64) for depth in (4, 5, 6, 7))])
        self.side = nn.ModuleList(nn.Conv2d(64, out_ch, 3, padding=1) for _ in range(6))
        self.outconv = nn.Conv2d(6 * out_ch, out_ch, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        hx, skips = x, []
        for i, stage in enumerate(self.encoder):
            hx = stage(hx if i == 0 else self.pool(hx))
            skips.append(hx)
        maps = [skips.pop()]
        for stage in self.decoder:
            skip = skips.pop()
            maps.append(stage(torch.cat((upsample_like(maps[-1], skip), skip), 1)))
        sides = [conv(each) for conv, each in zip(self.side, reversed(maps), strict=True)]
        sides = [sides[0], *(upsample_like(each, sides[0]) for each in sides[1:])]
        d0 = self.outconv(torch.cat(sides, 1))
        return (torch.sigmoid(d0), *(torch.sigmoid(each) for each in sides))


def build() -> nn.Module:
    return U2NetP()
