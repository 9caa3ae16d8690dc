"""ANN (Zhu et al., "Asymmetric Non-local Neural Networks for Semantic Segmentation", 2019): attention to a few averages
of the map, from pooling to 1x1, 3x3, 6x6 and 8x8 cells.

On ResNet-18 with output stride 8 (the paper has ResNet-101): 19 classes at 256x256, 13.4 million parameters.
"""

from __future__ import annotations

import torch
from architectures._convolutions import ConvBNReLU
from architectures._resnet import dilated_resnet18
from torch import Tensor, nn
from torch.nn import functional as F

SIZE = (256, 256)


class PPMConcat(nn.ModuleList):
    """The averages of all pools, side by side."""

    def __init__(self, scales: tuple[int, ...] = (1, 3, 6, 8)) -> None:
        super().__init__([nn.AdaptiveAvgPool2d(scale) for scale in scales])

    def forward(self, feats: Tensor) -> Tensor:
        return torch.cat([pool(feats).view(*feats.shape[:2], -1) for pool in self], dim=2)


class AsymmetricAttention(nn.Module):
    """Queries from one map; keys and values from the averages of another."""

    def __init__(self, low: int, high: int, width: int, outputs: int) -> None:
        super().__init__()
        self.query_project = ConvBNReLU(high, width, 1)
        self.key_project = ConvBNReLU(low, width, 1)
        self.value_project = nn.Conv2d(low, width, 1)
        self.out_project = nn.Sequential(nn.Conv2d(width, outputs, 1), nn.BatchNorm2d(outputs))
        self.psp, self.width = PPMConcat(), width

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        b = high.size(0)
        query = self.query_project(high)
        query = query.reshape(*query.shape[:2], -1).permute(0, 2, 1).contiguous()
        key, value = self.psp(self.key_project(low)), self.psp(self.value_project(low)).permute(0, 2, 1).contiguous()
        similarity = F.softmax((self.width**-0.5) * torch.matmul(query, key), dim=-1)
        context = torch.matmul(similarity, value).permute(0, 2, 1).contiguous()
        return self.out_project(context.reshape(b, -1, *high.shape[2:]))


class ANN(nn.Module):
    def __init__(self, classes: int = 19, width: int = 256) -> None:
        super().__init__()
        self.backbone, self.fusion = dilated_resnet18(), AsymmetricAttention(256, 512, 128, 512)
        self.fusion_bottleneck = nn.Sequential(nn.Conv2d(1024, 512, 1), nn.BatchNorm2d(512))
        self.bottleneck, self.context = ConvBNReLU(512, width), AsymmetricAttention(width, width, 128, width)
        self.context_bottleneck = nn.Sequential(nn.Conv2d(2 * width, width, 1), nn.BatchNorm2d(width), nn.ReLU(True))
        self.conv_seg = nn.Sequential(nn.Dropout2d(0.1), nn.Conv2d(width, classes, 1))

    def forward(self, x: Tensor) -> Tensor:
        low = self.backbone[:10](x)  # the end of the third stage
        high = self.backbone[10:](low)
        fused = self.fusion_bottleneck(torch.cat([self.fusion(low, high), high], 1))
        reduced = self.bottleneck(fused)
        output = self.context_bottleneck(torch.cat([self.context(reduced, reduced), reduced], 1))
        return F.interpolate(self.conv_seg(output), size=x.shape[2:], mode="bilinear", align_corners=False)


def build() -> nn.Module:
    return ANN()
