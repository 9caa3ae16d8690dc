"""YOLOv8n-seg (Jocher et al., 2023; masks as in Bolya et al., "YOLACT: Real-time Instance Segmentation", 2019).

At 256x256. Returns what an exported network returns: boxes, class scores and mask coefficients of every anchor
(1, 116, anchors), and the mask prototypes (1, 32, H/4, W/4).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

SIZE = (256, 256)
OUTPUT = 0  # boxes, scores and coefficients: the whole network but the prototypes
BINS = 16  # of the distribution over each side's distance
STRIDES = (8, 16, 32)


class Conv(nn.Module):
    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3)
        self.act = nn.SiLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)))


class Bottleneck(nn.Module):
    def __init__(self, channels: int, shortcut: bool) -> None:
        super().__init__()
        self.cv1 = Conv(channels, channels, 3)
        self.cv2 = Conv(channels, channels, 3)
        self.add = shortcut

    def forward(self, x: Tensor) -> Tensor:
        return x + self.cv2(self.cv1(x)) if self.add else self.cv2(self.cv1(x))


class C2f(nn.Module):
    """Two halves of the channels; every bottleneck of the second half is concatenated."""

    def __init__(self, inputs: int, outputs: int, count: int = 1, shortcut: bool = False) -> None:
        super().__init__()
        self.c = outputs // 2
        self.cv1 = Conv(inputs, 2 * self.c)
        self.cv2 = Conv((2 + count) * self.c, outputs)
        self.m = nn.ModuleList(Bottleneck(self.c, shortcut) for _ in range(count))

    def forward(self, x: Tensor) -> Tensor:
        y = list(self.cv1(x).chunk(2, 1))
        y.extend(m(y[-1]) for m in self.m)
        return self.cv2(torch.cat(y, 1))


class SPPF(nn.Module):
    def __init__(self, channels: int, kernel: int = 5) -> None:
        super().__init__()
        self.cv1 = Conv(channels, channels // 2)
        self.cv2 = Conv(channels * 2, channels)
        self.m = nn.MaxPool2d(kernel_size=kernel, stride=1, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        y = [self.cv1(x)]
        y.extend(self.m(y[-1]) for _ in range(3))
        return self.cv2(torch.cat(y, 1))


class Proto(nn.Module):
    def __init__(self, inputs: int, middle: int, masks: int) -> None:
        super().__init__()
        self.cv1 = Conv(inputs, middle, 3)
        self.upsample = nn.ConvTranspose2d(middle, middle, 2, 2, 0, bias=True)
        self.cv2 = Conv(middle, middle, 3)
        self.cv3 = Conv(middle, masks)

    def forward(self, x: Tensor) -> Tensor:
        return self.cv3(self.cv2(self.upsample(self.cv1(x))))


class DFL(nn.Module):
    """The expected value of each side's distribution, as a convolution with fixed weights 0, 1, 2, ..."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(BINS, 1, 1, bias=False).requires_grad_(False)
        self.conv.weight.data[:] = torch.arange(BINS, dtype=torch.float).view(1, BINS, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        b, _, a = x.shape
        return self.conv(x.view(b, 4, BINS, a).transpose(2, 1).softmax(1)).view(b, 4, a)


def make_anchors(maps: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Centres of all cells (2, anchors) and their strides (1, anchors)."""
    points, strides = [], []
    for x, stride in zip(maps, STRIDES, strict=True):
        _, _, h, w = x.shape
        sx = torch.arange(end=w, device=x.device, dtype=x.dtype) + 0.5
        sy = torch.arange(end=h, device=x.device, dtype=x.dtype) + 0.5
        sy, sx = torch.meshgrid(sy, sx, indexing="ij")
        points.append(torch.stack((sx, sy), -1).view(-1, 2))
        strides.append(torch.full((h * w, 1), stride, dtype=x.dtype, device=x.device))
    return torch.cat(points).transpose(0, 1), torch.cat(strides).transpose(0, 1)


class Segment(nn.Module):
    def __init__(self, channels: tuple[int, ...], classes: int = 80, masks: int = 32, prototypes: int = 64) -> None:
        super().__init__()
        self.nm, self.no = masks, classes + 4 * BINS
        self.nc = classes

        def branch(middle: int, outputs: int) -> nn.ModuleList:
            return nn.ModuleList(
                nn.Sequential(Conv(c, middle, 3), Conv(middle, middle, 3), nn.Conv2d(middle, outputs, 1))
                for c in channels
            )

        self.proto = Proto(channels[0], prototypes, masks)
        self.cv2 = branch(max(16, channels[0] // 4, 4 * BINS), 4 * BINS)
        self.cv3 = branch(max(channels[0], min(classes, 100)), classes)
        self.cv4 = branch(max(channels[0] // 4, masks), masks)
        self.dfl = DFL()

    def forward(self, x: list[Tensor]) -> tuple[Tensor, Tensor]:
        proto = self.proto(x[0])
        batch = proto.shape[0]
        coefficients = torch.cat([cv(each).view(batch, self.nm, -1) for cv, each in zip(self.cv4, x, strict=True)], 2)
        raw = [torch.cat((a(each), b(each)), 1) for a, b, each in zip(self.cv2, self.cv3, x, strict=True)]
        anchors, strides = make_anchors(raw)
        joined = torch.cat([each.view(batch, self.no, -1) for each in raw], 2)
        box, scores = joined.split((BINS * 4, self.nc), 1)
        near, far = self.dfl(box).chunk(2, 1)
        near, far = anchors.unsqueeze(0) - near, anchors.unsqueeze(0) + far
        boxes = torch.cat(((near + far) / 2, far - near), 1) * strides
        return torch.cat((boxes, scores.sigmoid(), coefficients), 1), proto


class YOLOv8Seg(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.to8 = nn.Sequential(
            Conv(3, 16, 3, 2), Conv(16, 32, 3, 2), C2f(32, 32, 1, True), Conv(32, 64, 3, 2), C2f(64, 64, 2, True)
        )
        self.to16 = nn.Sequential(Conv(64, 128, 3, 2), C2f(128, 128, 2, True))
        self.to32 = nn.Sequential(Conv(128, 256, 3, 2), C2f(256, 256, 1, True), SPPF(256))
        self.upsample = nn.Upsample(scale_factor=2, mode="nearest")
        self.up16 = C2f(256 + 128, 128)
        self.up8 = C2f(128 + 64, 64)
        self.down8 = Conv(64, 64, 3, 2)
        self.out16 = C2f(64 + 128, 128)
        self.down16 = Conv(128, 128, 3, 2)
        self.out32 = C2f(128 + 256, 256)
        self.head = Segment((64, 128, 256))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        p8 = self.to8(x)
        p16 = self.to16(p8)
        p32 = self.to32(p16)
        up16 = self.up16(torch.cat((self.upsample(p32), p16), 1))
        out8 = self.up8(torch.cat((self.upsample(up16), p8), 1))
        out16 = self.out16(torch.cat((self.down8(out8), up16), 1))
        out32 = self.out32(torch.cat((self.down16(out16), p32), 1))
        return self.head([out8, out16, out32])


def build() -> nn.Module:
    return YOLOv8Seg()
