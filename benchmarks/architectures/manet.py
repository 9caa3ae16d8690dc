"""MA-Net (Fan et al., "MA-Net: A Multi-Scale Attention Network for Liver and Tumor Segmentation", 2020), in the form
that segmentation_models_pytorch made common.

ResNet-18, attention on its last map, gated skip connections: 2 classes at 256x256, 22 million parameters. The softmax
runs over all pairs of places at once, and the result is reshaped, not transposed, as in the public code.
"""

from __future__ import annotations

import torch
from architectures._convolutions import ConvBNReLU
from architectures._resnet import ResNet18
from torch import Tensor, nn
from torch.nn import functional as F

SIZE = (256, 256)


class Encoder(ResNet18):
    """Also returns the map at stride 2."""

    def forward(self, x: Tensor) -> list[Tensor]:
        found = [self.stem(x)]
        x = self.maxpool(found[0])
        for layer in self.layers:
            x = layer(x)
            found.append(x)
        return found


class PositionAttention(nn.Module):
    def __init__(self, width: int, inner: int = 64) -> None:
        super().__init__()
        self.top_conv, self.center_conv = nn.Conv2d(width, inner, 1), nn.Conv2d(width, inner, 1)
        self.bottom_conv, self.out_conv = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)
        self.map_softmax = nn.Softmax(dim=1)

    def forward(self, x: Tensor) -> Tensor:
        b_size, _, h_size, w_size = x.size()
        x_top = self.top_conv(x).flatten(2)
        x_center = self.center_conv(x).flatten(2).transpose(1, 2)
        x_bottom = self.bottom_conv(x).flatten(2).transpose(1, 2)
        sp_map = torch.matmul(x_center, x_top)
        sp_map = self.map_softmax(sp_map.view(b_size, -1)).view(b_size, h_size * w_size, h_size * w_size)
        sp_map = torch.matmul(sp_map, x_bottom).reshape(b_size, -1, h_size, w_size)
        return self.out_conv(x + sp_map)


def squeeze(width: int, reduction: int = 16) -> nn.Sequential:
    hidden = max(1, width // reduction)
    layers = nn.AdaptiveAvgPool2d(1), nn.Conv2d(width, hidden, 1), nn.ReLU(inplace=True), nn.Conv2d(hidden, width, 1)
    return nn.Sequential(*layers, nn.Sigmoid())


class MultiscaleFusion(nn.Module):
    """Gates from the deeper map and from the skip connection, added."""

    def __init__(self, inputs: int, skip: int, outputs: int) -> None:
        super().__init__()
        self.hl_conv = nn.Sequential(ConvBNReLU(inputs, inputs), ConvBNReLU(inputs, skip, 1))
        self.se_ll, self.se_hl = squeeze(skip), squeeze(skip)
        self.conv1, self.conv2 = ConvBNReLU(2 * skip, outputs), ConvBNReLU(outputs, outputs)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = F.interpolate(self.hl_conv(x), scale_factor=2.0, mode="nearest")
        x = x * (self.se_hl(x) + self.se_ll(skip))
        return self.conv2(self.conv1(torch.cat([x, skip], dim=1)))


class MANet(nn.Module):
    def __init__(self, classes: int = 2) -> None:
        super().__init__()
        self.encoder, self.center = Encoder(), PositionAttention(512)
        shapes = [(512, 256, 256), (256, 128, 128), (128, 64, 64), (64, 64, 32)]
        self.blocks = nn.ModuleList(MultiscaleFusion(*shape) for shape in shapes)
        self.last = nn.Sequential(ConvBNReLU(32, 16), ConvBNReLU(16, 16))
        self.segmentation_head = nn.Conv2d(16, classes, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        *skips, x = self.encoder(x)
        x = self.center(x)
        for block, skip in zip(self.blocks, reversed(skips), strict=True):
            x = block(x, skip)
        return self.segmentation_head(self.last(F.interpolate(x, scale_factor=2.0, mode="nearest")))


def build() -> nn.Module:
    return MANet()
