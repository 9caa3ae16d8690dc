"""GCNet (Cao et al., "GCNet: Non-local Networks Meet Squeeze-Excitation Networks and Beyond", 2019).

One global context block in the head of a fully convolutional network on ResNet-18 with output stride 8 (the paper has
ResNet-101 in semantic segmentation): 19 classes at 256x256, 14.8 million parameters.
"""

from __future__ import annotations

import torch
from architectures._convolutions import ConvBNReLU
from torch import Tensor, nn
from torch.nn import functional as F

SIZE = (256, 256)


class BasicBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, dilation, dilation, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, dilation, dilation, bias=False)
        self.bn1, self.bn2, self.relu = nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            projection = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += identity
        return self.relu(out)


def resnet18() -> nn.Sequential:
    """ResNet-18 with dilated last stages: output stride 8."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True)]
    layers.append(nn.MaxPool2d(kernel_size=3, stride=2, padding=1))
    inputs = 64
    for outputs, stride, dilation in ((64, 1, 1), (128, 2, 1), (256, 1, 2), (512, 1, 4)):
        layers += [BasicBlock(inputs, outputs, stride, dilation), BasicBlock(outputs, outputs, 1, dilation)]
        inputs = outputs
    return nn.Sequential(*layers)


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
        self.backbone, self.before, self.gc_block = resnet18(), ConvBNReLU(512, width), ContextBlock(width)
        self.after, self.conv_cat = ConvBNReLU(width, width), ConvBNReLU(512 + width, width)
        self.conv_seg = nn.Sequential(nn.Dropout2d(0.1), nn.Conv2d(width, classes, 1))

    def forward(self, x: Tensor) -> Tensor:
        features = self.backbone(x)
        output = self.after(self.gc_block(self.before(features)))
        logits = self.conv_seg(self.conv_cat(torch.cat([features, output], dim=1)))
        return F.interpolate(logits, size=x.shape[2:], mode="bilinear", align_corners=False)


def build() -> nn.Module:
    return GCNet()
