"""Non-local network (Wang et al., "Non-local Neural Networks", 2018): the embedded Gaussian form, whose keys and values
are halved by max pooling, in the head of a fully convolutional network.

On ResNet-18 with output stride 8 (the paper's segmentation successors have ResNet-50): 19 classes at 256x256, 14.9
million parameters.
"""

from __future__ import annotations

import torch
from architectures._convolutions import ConvBNReLU
from architectures._resnet import dilated_resnet18
from torch import Tensor, nn
from torch.nn import functional as F

SIZE = (256, 256)


class NonLocal(nn.Module):
    """Every place attends to every second place of every second row."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inter_channels = width // 2
        self.theta = nn.Conv2d(width, self.inter_channels, 1)
        self.phi = nn.Sequential(nn.Conv2d(width, self.inter_channels, 1), nn.MaxPool2d(2))
        self.g = nn.Sequential(nn.Conv2d(width, self.inter_channels, 1), nn.MaxPool2d(2))
        self.W = nn.Sequential(nn.Conv2d(self.inter_channels, width, 1), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        batch_size = x.size(0)
        g_x = self.g(x).view(batch_size, self.inter_channels, -1).permute(0, 2, 1)
        theta_x = self.theta(x).view(batch_size, self.inter_channels, -1).permute(0, 2, 1)
        phi_x = self.phi(x).view(batch_size, self.inter_channels, -1)
        y = torch.matmul(F.softmax(torch.matmul(theta_x, phi_x), dim=-1), g_x).permute(0, 2, 1).contiguous()
        return self.W(y.view(batch_size, self.inter_channels, *x.size()[2:])) + x


class NonLocalFCN(nn.Module):
    def __init__(self, classes: int = 19, width: int = 256) -> None:
        super().__init__()
        self.backbone, self.before, self.nl_block = dilated_resnet18(), ConvBNReLU(512, width), NonLocal(width)
        self.after, self.conv_cat = ConvBNReLU(width, width), ConvBNReLU(512 + width, width)
        self.conv_seg = nn.Sequential(nn.Dropout2d(0.1), nn.Conv2d(width, classes, 1))

    def forward(self, x: Tensor) -> Tensor:
        features = self.backbone(x)
        output = self.after(self.nl_block(self.before(features)))
        logits = self.conv_seg(self.conv_cat(torch.cat([features, output], dim=1)))
        return F.interpolate(logits, size=x.shape[2:], mode="bilinear", align_corners=False)


def build() -> nn.Module:
    return NonLocalFCN()
