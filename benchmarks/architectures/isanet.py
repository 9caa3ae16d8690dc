"""ISANet (Yuan et al., "Interlaced Sparse Self-Attention for Semantic Segmentation", 2019; "OCNet", 2021).

Attention first among places that lie 8 apart, then within 8x8 places. On ResNet-18 with output stride 8 (the paper
has ResNet-101): 19 classes at 272x272, where maps of 34x34 are padded to 40x40, 13.9 million parameters.
"""

from __future__ import annotations

import math

import torch
from architectures._convolutions import ConvBNReLU
from architectures._resnet import dilated_resnet18
from torch import Tensor, nn
from torch.nn import functional as F

SIZE = (272, 272)


class SelfAttention(nn.Module):
    """Every place of a map attends to every place."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.key_project, self.query_project = self._project(inputs, width, 2), self._project(inputs, width, 2)
        self.value_project, self.out_project = self._project(inputs, width, 1), self._project(width, inputs, 1)
        self.width = width

    @staticmethod
    def _project(inputs: int, outputs: int, count: int) -> nn.Sequential:
        layers: list[nn.Module] = []
        for index in range(count):
            layers.append(nn.Conv2d(outputs if index else inputs, outputs, 1, bias=False))
            layers += [nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
        return nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        b, _, height, width = x.shape
        query = self.query_project(x).reshape(b, self.width, -1).permute(0, 2, 1).contiguous()
        key = self.key_project(x).reshape(b, self.width, -1)
        value = self.value_project(x).reshape(b, self.width, -1).permute(0, 2, 1).contiguous()
        weights = F.softmax(torch.matmul(query, key) * self.width**-0.5, dim=-1)
        context = torch.matmul(weights, value).permute(0, 2, 1).contiguous()
        return self.out_project(context.reshape(b, -1, height, width))


class ISANet(nn.Module):
    def __init__(self, classes: int = 19, width: int = 256, isa: int = 128, factor: int = 8) -> None:
        super().__init__()
        self.backbone, self.factor = dilated_resnet18(), factor
        self.in_conv, self.global_relation = ConvBNReLU(512, width), SelfAttention(width, isa)
        self.local_relation, self.out_conv = SelfAttention(width, isa), ConvBNReLU(2 * width, width)
        self.conv_seg = nn.Sequential(nn.Dropout2d(0.1), nn.Conv2d(width, classes, 1))

    def forward(self, image: Tensor) -> Tensor:
        x_ = self.in_conv(self.backbone(image))
        residual, side = x_, self.factor
        n, c, h, w = x_.size()
        glob_h, glob_w = math.ceil(h / side), math.ceil(w / side)
        pad_h, pad_w = glob_h * side - h, glob_w * side - w
        if pad_h > 0 or pad_w > 0:
            padding = (pad_w // 2, pad_w - pad_w // 2, pad_h // 2, pad_h - pad_h // 2)
            x_ = F.pad(x_, padding)
        x_ = x_.view(n, c, glob_h, side, glob_w, side)
        x_ = x_.permute(0, 3, 5, 1, 2, 4).reshape(-1, c, glob_h, glob_w)
        x_ = self.global_relation(x_)
        x_ = x_.view(n, side, side, c, glob_h, glob_w)
        x_ = x_.permute(0, 4, 5, 3, 1, 2).reshape(-1, c, side, side)
        x_ = self.local_relation(x_)
        x_ = x_.view(n, glob_h, glob_w, c, side, side).permute(0, 3, 1, 4, 2, 5)
        x_ = x_.reshape(n, c, glob_h * side, glob_w * side)
        if pad_h > 0 or pad_w > 0:
            x_ = x_[:, :, pad_h // 2 : pad_h // 2 + h, pad_w // 2 : pad_w // 2 + w]
        logits = self.conv_seg(self.out_conv(torch.cat([x_, residual], dim=1)))
        return F.interpolate(logits, size=image.shape[2:], mode="bilinear", align_corners=False)


def build() -> nn.Module:
    return ISANet()
