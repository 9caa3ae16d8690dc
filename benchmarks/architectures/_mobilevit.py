"""What MobileViT and its second version share: mobile convolutions, and DeepLabV3's pyramid (Chen et al., "Rethinking
Atrous Convolution for Semantic Image Segmentation", 2017).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def conv(
    inputs: int, outputs: int, kernel: int = 1, stride: int = 1, dilation: int = 1, groups: int = 1, act: bool = True
) -> nn.Sequential:
    padding = dilation * (kernel // 2)
    layer = nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), *([nn.SiLU()] if act else []))


class InvertedResidual(nn.Module):
    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.block = nn.Sequential(
            conv(inputs, hidden), conv(hidden, hidden, 3, stride, dilation, hidden), conv(hidden, outputs, act=False)
        )
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.block(x) if self.residual else self.block(x)


class ASPP(nn.Module):
    """Dilated convolutions of several rates beside the average of the map (atrous spatial pyramid pooling)."""

    def __init__(self, inputs: int, width: int, rates: tuple[int, ...]) -> None:
        super().__init__()
        self.branches = nn.ModuleList([conv(inputs, width), *(conv(inputs, width, 3, dilation=r) for r in rates)])
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), conv(inputs, width))
        self.project = conv(width * (len(rates) + 2), width)

    def forward(self, x: Tensor) -> Tensor:
        found = [branch(x) for branch in self.branches]
        found.append(F.interpolate(self.pool(x), size=x.shape[-2:], mode="bilinear", align_corners=False))
        return self.project(torch.cat(found, dim=1))
