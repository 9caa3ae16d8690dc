"""PIDNet-S (Xu, Xiong, Bhattacharyya, "PIDNet: A Real-time Semantic Segmentation Network Inspired by PID Controllers",
2022), at 512x512, without the two heads for training.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from architectures._convolutions import BNReLUConv, ConvBN
from architectures._ddrnet import layer
from torch import Tensor, nn

SIZE = (512, 512)
PLANES = 32


def resize(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=[like.shape[-2], like.shape[-1]], mode="bilinear", align_corners=False)


class PixelAttentionGuidedFusion(nn.Module):
    def __init__(self, channels: int, middle: int) -> None:
        super().__init__()
        self.f_x = ConvBN(channels, middle, 1)
        self.f_y = ConvBN(channels, middle, 1)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        y_q = resize(self.f_y(y), x)
        x_k = self.f_x(x)
        sim_map = torch.sigmoid(torch.sum(x_k * y_q, dim=1).unsqueeze(1))
        return (1 - sim_map) * x + sim_map * resize(y, x)


class BoundaryAttentionGuidedFusion(nn.Module):
    """The light form."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_p = ConvBN(channels, channels, 1)
        self.conv_i = ConvBN(channels, channels, 1)

    def forward(self, p: Tensor, i: Tensor, d: Tensor) -> Tensor:
        edge_att = torch.sigmoid(d)
        p_add = self.conv_p((1 - edge_att) * i + p)
        i_add = self.conv_i(i + edge_att * p)
        return p_add + i_add


class ParallelPyramidPooling(nn.Module):
    def __init__(self, inputs: int, middle: int, outputs: int) -> None:
        super().__init__()
        pools = [nn.AvgPool2d(2**k + 1, stride=2 ** (k - 1), padding=2 ** (k - 1)) for k in (2, 3, 4)]
        pools.append(nn.AdaptiveAvgPool2d((1, 1)))
        self.scales = nn.ModuleList(nn.Sequential(pool, *BNReLUConv(inputs, middle, 1)) for pool in pools)
        self.scale0 = BNReLUConv(inputs, middle, 1)
        self.scale_process = BNReLUConv(middle * 4, middle * 4, 3, groups=4)
        self.compression = BNReLUConv(middle * 5, outputs, 1)
        self.shortcut = BNReLUConv(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        x_ = self.scale0(x)
        scale_list = [resize(scale(x), x) + x_ for scale in self.scales]
        scale_out = self.scale_process(torch.cat(scale_list, 1))
        return self.compression(torch.cat([x_, scale_out], 1)) + self.shortcut(x)


class PIDNet(nn.Module):
    def __init__(self, classes: int = 19, planes: int = PLANES) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(
            nn.Conv2d(3, planes, 3, 2, 1),
            nn.BatchNorm2d(planes),
            nn.ReLU(True),
            nn.Conv2d(planes, planes, 3, 2, 1),
            nn.BatchNorm2d(planes),
            nn.ReLU(True),
        )
        self.relu = nn.ReLU(inplace=True)
        # integral: the context
        self.layer1 = layer(planes, planes, 2)
        self.layer2 = layer(planes, planes * 2, 2, 2)
        self.layer3 = layer(planes * 2, planes * 4, 3, 2)
        self.layer4 = layer(planes * 4, planes * 8, 3, 2)
        self.layer5 = layer(planes * 8, planes * 8, 2, 2, bottleneck=True)
        # proportional: the detail
        self.compression3 = ConvBN(planes * 4, planes * 2, 1)
        self.compression4 = ConvBN(planes * 8, planes * 2, 1)
        self.pag3 = PixelAttentionGuidedFusion(planes * 2, planes)
        self.pag4 = PixelAttentionGuidedFusion(planes * 2, planes)
        self.layer3_ = layer(planes * 2, planes * 2, 2)
        self.layer4_ = layer(planes * 2, planes * 2, 2)
        self.layer5_ = layer(planes * 2, planes * 2, 1, bottleneck=True)
        # derivative: the boundary
        self.layer3_d = layer(planes * 2, planes, 1)
        self.layer4_d = layer(planes, planes, 1, bottleneck=True)
        self.layer5_d = layer(planes * 2, planes * 2, 1, bottleneck=True)
        self.diff3 = ConvBN(planes * 4, planes, 3)
        self.diff4 = ConvBN(planes * 8, planes * 2, 3)
        self.spp = ParallelPyramidPooling(planes * 16, 96, planes * 4)
        self.dfm = BoundaryAttentionGuidedFusion(planes * 4)
        self.final_layer = nn.Sequential(
            *BNReLUConv(planes * 4, 128, 3), nn.BatchNorm2d(128), nn.ReLU(inplace=True), nn.Conv2d(128, classes, 1)
        )

    def forward(self, image: Tensor) -> Tensor:
        x = self.layer1(self.conv1(image))
        x = self.relu(self.layer2(self.relu(x)))
        x_, x_d = self.layer3_(x), self.layer3_d(x)

        x = self.relu(self.layer3(x))
        x_ = self.pag3(x_, self.compression3(x))
        x_d = x_d + resize(self.diff3(x), x_d)

        x = self.relu(self.layer4(x))
        x_, x_d = self.layer4_(self.relu(x_)), self.layer4_d(self.relu(x_d))
        x_ = self.pag4(x_, self.compression4(x))
        x_d = x_d + resize(self.diff4(x), x_d)

        x_, x_d = self.layer5_(self.relu(x_)), self.layer5_d(self.relu(x_d))
        x = resize(self.spp(self.layer5(x)), x_)
        return resize(self.final_layer(self.dfm(x_, x, x_d)), image)


def build() -> nn.Module:
    return PIDNet()
