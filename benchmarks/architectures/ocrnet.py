"""OCRNet (Yuan, Chen, Wang, "Object-Contextual Representations for Semantic Segmentation", 2019), at 256x256.

Backbone ResNet-18, dilated to 1/8, with half the channels of the head of the paper's ResNet-101. The first head stays,
since its soft regions are part of inference.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from architectures._convolutions import ConvBN, ConvBNReLU
from torch import Tensor, nn

SIZE = (256, 256)


class BasicBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.conv1 = ConvBNReLU(inputs, outputs, 3, stride, dilation=dilation)
        self.conv2 = ConvBN(outputs, outputs)
        self.downsample = ConvBN(inputs, outputs, 1, stride) if inputs != outputs else None
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        out = self.conv2(self.conv1(x))
        out += identity
        return self.relu(out)


def layer(inputs: int, outputs: int, stride: int = 1, first: int = 1, dilation: int = 1) -> nn.Sequential:
    return nn.Sequential(BasicBlock(inputs, outputs, stride, first), BasicBlock(outputs, outputs, 1, dilation))


class SpatialGather(nn.Module):
    """One vector per class: the mean of all pixels, weighted by the class's soft region."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, feats: Tensor, probs: Tensor) -> Tensor:
        batch_size, num_classes = probs.size(0), probs.size(1)
        channels = feats.size(1)
        probs = probs.view(batch_size, num_classes, -1)
        feats = feats.view(batch_size, channels, -1).permute(0, 2, 1)
        probs = F.softmax(self.scale * probs, dim=2)
        ocr_context = torch.matmul(probs, feats)
        return ocr_context.permute(0, 2, 1).contiguous().unsqueeze(3)


class ObjectAttention(nn.Module):
    """Every pixel attends to the classes' vectors."""

    def __init__(self, channels: int, key_channels: int) -> None:
        super().__init__()
        self.key_channels = key_channels
        self.f_pixel = nn.Sequential(ConvBNReLU(channels, key_channels, 1), ConvBNReLU(key_channels, key_channels, 1))
        self.f_object = nn.Sequential(ConvBNReLU(channels, key_channels, 1), ConvBNReLU(key_channels, key_channels, 1))
        self.f_down = ConvBNReLU(channels, key_channels, 1)
        self.f_up = ConvBNReLU(key_channels, channels, 1)

    def forward(self, x: Tensor, proxy: Tensor) -> Tensor:
        batch_size, h, w = x.size(0), x.size(2), x.size(3)
        query = self.f_pixel(x).view(batch_size, self.key_channels, -1)
        query = query.permute(0, 2, 1)
        key = self.f_object(proxy).view(batch_size, self.key_channels, -1)
        value = self.f_down(proxy).view(batch_size, self.key_channels, -1)
        value = value.permute(0, 2, 1)
        sim_map = torch.matmul(query, key)
        sim_map = (self.key_channels**-0.5) * sim_map
        sim_map = F.softmax(sim_map, dim=-1)
        context = torch.matmul(sim_map, value)
        context = context.permute(0, 2, 1).contiguous()
        context = context.view(batch_size, self.key_channels, *x.size()[2:])
        return self.f_up(context.view(batch_size, self.key_channels, h, w))


class OCRNet(nn.Module):
    def __init__(self, classes: int = 19, channels: int = 256, key_channels: int = 128) -> None:
        super().__init__()
        self.stem = nn.Sequential(ConvBNReLU(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1))
        self.layers = nn.Sequential(layer(64, 64), layer(64, 128, 2), layer(128, 256, 1, 1, 2))
        self.layer4 = layer(256, 512, 1, 2, 4)
        self.dsn_head = nn.Sequential(ConvBNReLU(256, channels), nn.Dropout2d(0.05), nn.Conv2d(channels, classes, 1))
        self.conv3x3 = ConvBNReLU(512, channels)
        self.gather = SpatialGather()
        self.attention = ObjectAttention(channels, key_channels)
        self.bottleneck = nn.Sequential(ConvBNReLU(2 * channels, channels, 1), nn.Dropout2d(0.05))
        self.head = nn.Conv2d(channels, classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        x_dsn = self.layers(self.stem(image))
        x = self.conv3x3(self.layer4(x_dsn))
        context = self.gather(x, self.dsn_head(x_dsn))
        context = self.attention(x, context)
        x = self.head(self.bottleneck(torch.cat([context, x], 1)))
        return F.interpolate(x, size=image.shape[2:], mode="bilinear", align_corners=True)


def build() -> nn.Module:
    return OCRNet()
