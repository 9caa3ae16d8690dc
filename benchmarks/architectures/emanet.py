"""EMANet (Li et al., "Expectation-Maximization Attention Networks for Semantic Segmentation", 2019).

On ResNet-18 with output stride 8 (the paper has ResNet-101), three iterations: 21 classes at 256x256, 15.3 million
parameters.
"""

from __future__ import annotations

import math

import torch
from architectures._convolutions import ConvBNReLU
from architectures._resnet import dilated_resnet18
from torch import Tensor, nn
from torch.nn import functional as F

SIZE = (256, 256)


class EMAU(nn.Module):
    """Expectation-maximisation: places are assigned to bases, bases are averaged, and the map is rebuilt from them."""

    def __init__(self, width: int, count: int = 64, stages: int = 3) -> None:
        super().__init__()
        self.stage_num = stages
        bases = torch.empty(1, width, count).normal_(0, math.sqrt(2.0 / count))
        self.register_buffer("mu", self._l2norm(bases, dim=1))
        self.conv1 = nn.Conv2d(width, width, 1)
        self.conv2 = nn.Sequential(nn.Conv2d(width, width, 1, bias=False), nn.BatchNorm2d(width))

    @staticmethod
    def _l2norm(x: Tensor, dim: int) -> Tensor:
        return x / (1e-6 + x.norm(dim=dim, keepdim=True))

    def forward(self, x: Tensor) -> Tensor:
        identity = x
        x = self.conv1(x)
        b, c, height, width = x.size()
        x = x.view(b, c, height * width)
        mu = self.mu.repeat(b, 1, 1)
        for _ in range(self.stage_num):
            z = F.softmax(torch.bmm(x.permute(0, 2, 1), mu), dim=2)
            share = z / (1e-6 + z.sum(dim=1, keepdim=True))
            mu = self._l2norm(torch.bmm(x, share), dim=1)
        x = mu.matmul(z.permute(0, 2, 1)).view(b, c, height, width)
        x = self.conv2(F.relu(x, inplace=True))
        return F.relu(x + identity, inplace=True)


class EMANet(nn.Module):
    def __init__(self, classes: int = 21) -> None:
        super().__init__()
        self.backbone, self.fc0, self.emau = dilated_resnet18(), ConvBNReLU(512, 512), EMAU(512)
        self.fc1 = nn.Sequential(ConvBNReLU(512, 256), nn.Dropout2d(0.1))
        self.fc2 = nn.Conv2d(256, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        logits = self.fc2(self.fc1(self.emau(self.fc0(self.backbone(x)))))
        return F.interpolate(logits, size=x.size()[-2:], mode="bilinear", align_corners=True)


def build() -> nn.Module:
    return EMANet()
