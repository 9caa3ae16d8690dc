"""CGNet (Wu et al., "CGNet: A Light-weight Context Guided Network for Semantic Segmentation", 2018), M3N21, 512x512."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIZE = (512, 512)


def conv(inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, (kernel - 1) // 2, bias=False)


def norm_act(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.BatchNorm2d(channels, eps=1e-3), nn.PReLU(channels))


def depthwise(channels: int, dilation: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation, groups=channels, bias=False)


class GlobalContext(nn.Module):
    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        self.avg_pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Sequential(
            nn.Linear(channels, channels // reduction),
            nn.ReLU(inplace=True),
            nn.Linear(channels // reduction, channels),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        b, c, _, _ = x.size()
        y = self.avg_pool(x).view(b, c)
        y = self.fc(y).view(b, c, 1, 1)
        return x * y


class ContextGuidedDown(nn.Module):
    def __init__(self, inputs: int, outputs: int, dilation: int, reduction: int) -> None:
        super().__init__()
        self.conv1x1 = nn.Sequential(conv(inputs, outputs, 3, 2), norm_act(outputs))
        self.f_loc = depthwise(outputs)
        self.f_sur = depthwise(outputs, dilation)
        self.bn_act = norm_act(2 * outputs)
        self.reduce = conv(2 * outputs, outputs)
        self.f_glo = GlobalContext(outputs, reduction)

    def forward(self, x: Tensor) -> Tensor:
        output = self.conv1x1(x)
        joi_feat = torch.cat([self.f_loc(output), self.f_sur(output)], 1)
        return self.f_glo(self.reduce(self.bn_act(joi_feat)))


class ContextGuided(nn.Module):
    """Local features beside dilated ones, weighted by the global context."""

    def __init__(self, channels: int, dilation: int, reduction: int) -> None:
        super().__init__()
        half = channels // 2
        self.conv1x1 = nn.Sequential(conv(channels, half), norm_act(half))
        self.f_loc = depthwise(half)
        self.f_sur = depthwise(half, dilation)
        self.bn_prelu = norm_act(channels)
        self.f_glo = GlobalContext(channels, reduction)

    def forward(self, x: Tensor) -> Tensor:
        output = self.conv1x1(x)
        joi_feat = self.bn_prelu(torch.cat([self.f_loc(output), self.f_sur(output)], 1))
        return x + self.f_glo(joi_feat)


class InputInjection(nn.Module):
    def __init__(self, ratio: int) -> None:
        super().__init__()
        self.pool = nn.ModuleList(nn.AvgPool2d(3, stride=2, padding=1) for _ in range(ratio))

    def forward(self, x: Tensor) -> Tensor:
        for pool in self.pool:
            x = pool(x)
        return x


class CGNet(nn.Module):
    def __init__(self, classes: int = 19, m: int = 3, n: int = 21) -> None:
        super().__init__()
        self.level1 = nn.Sequential(
            conv(3, 32, 3, 2), norm_act(32), conv(32, 32, 3), norm_act(32), conv(32, 32, 3), norm_act(32)
        )
        self.sample1 = InputInjection(1)
        self.sample2 = InputInjection(2)
        self.b1 = norm_act(32 + 3)
        self.level2_0 = ContextGuidedDown(32 + 3, 64, 2, 8)
        self.level2 = nn.ModuleList(ContextGuided(64, 2, 8) for _ in range(m - 1))
        self.b2 = norm_act(128 + 3)
        self.level3_0 = ContextGuidedDown(128 + 3, 128, 4, 16)
        self.level3 = nn.ModuleList(ContextGuided(128, 4, 16) for _ in range(n - 1))
        self.b3 = norm_act(256)
        self.classifier = conv(256, classes)

    def forward(self, image: Tensor) -> Tensor:
        inp1, inp2 = self.sample1(image), self.sample2(image)
        output0 = self.b1(torch.cat([self.level1(image), inp1], 1))
        output1_0 = output1 = self.level2_0(output0)
        for layer in self.level2:
            output1 = layer(output1)
        output1_cat = self.b2(torch.cat([output1, output1_0, inp2], 1))
        output2_0 = output2 = self.level3_0(output1_cat)
        for layer in self.level3:
            output2 = layer(output2)
        logits = self.classifier(self.b3(torch.cat([output2_0, output2], 1)))
        return F.interpolate(logits, image.size()[2:], mode="bilinear", align_corners=False)


def build() -> nn.Module:
    return CGNet()
