"""GCNet (Cao et al., "GCNet: Non-local Networks Meet Squeeze-Excitation Networks and Beyond", 2019).

One global context block in the head of a fully convolutional network on ResNet-18 with output stride 8 (the paper has
ResNet-101 in semantic segmentation): 19 classes at 256x256, 14.8 million parameters.
"""

from __future__ import annotations

import torch
from architectures._convolutions import ConvBNReLU
from architectures._resnet import dilated_resnet18
from torch import Tensor, nn
from torch.nn import functional as F

SIZE = (256, 256)


class ContextBlock(nn.Module):
    """One attention map for all places; the average that it weights is added to every place."""

    def __init__(self, inputs: int, ratio: float = 1 / 4) -> None:
        super().__init__()
        planes = int(inputs * ratio)
        self.conv_mask, self.softmax = nn.Conv2d(inputs, 1, kernel_size=1), nn.Softmax(dim=2)
        self.channel_add_conv = nn.Sequential(
            nn.Conv2d(inputs, planes, 1),
            nn.LayerNorm([planes, 1, 1]),
            nn.ReLU(inplace=True),
            nn.Conv2d(planes, inputs, 1),
        )

    def spatial_pool(self, x: Tensor) -> Tensor:
        batch, channel, height, width = x.size()
        input_x = x.view(batch, channel, height * width).unsqueeze(1)
        mask = self.softmax(self.conv_mask(x).view(batch, 1, height * width)).unsqueeze(-1)
        return torch.matmul(input_x, mask).view(batch, channel, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.channel_add_conv(self.spatial_pool(x))


class GCNet(nn.Module):
    def __init__(self, classes: int = 19, width: int = 256) -> None:
        super().__init__()
        self.backbone, self.before, self.gc_block = dilated_resnet18(), ConvBNReLU(512, width), ContextBlock(width)
        self.after, self.conv_cat = ConvBNReLU(width, width), ConvBNReLU(512 + width, width)
        self.conv_seg = nn.Sequential(nn.Dropout2d(0.1), nn.Conv2d(width, classes, 1))

    def forward(self, x: Tensor) -> Tensor:
        features = self.backbone(x)
        output = self.after(self.gc_block(self.before(features)))
        logits = self.conv_seg(self.conv_cat(torch.cat([features, output], dim=1)))
        return F.interpolate(logits, size=x.shape[2:], mode="bilinear", align_corners=False)


def build() -> nn.Module:
    return GCNet()
