"""PIDNet-S (Xu, Xiong, Bhattacharyya, "PIDNet: A Real-time Semantic Segmentation Network Inspired by PID Controllers",
2022), at 512x512, without the two heads for training.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from architectures._convolutions import BNReLUConv
from torch import Tensor, nn

SIZE = (512, 512)
PLANES = 32


def conv_norm(inputs: int, outputs: int, kernel: int, stride: int = 1, bias: bool = False) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=bias)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


def resize(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=[like.shape[-2], like.shape[-1]], mode="bilinear", align_corners=False)


class Block(nn.Module):
    """Basic block (two 3x3), or bottleneck that doubles the channels (1x1, 3x3, 1x1)."""

    def __init__(self, inputs: int, planes: int, stride: int, bottleneck: bool, last: bool) -> None:
        super().__init__()
        outputs = planes * 2 if bottleneck else planes
        if bottleneck:
            convs = [conv_norm(inputs, planes, 1), conv_norm(planes, planes, 3, stride), conv_norm(planes, outputs, 1)]
        else:
            convs = [conv_norm(inputs, planes, 3, stride), conv_norm(planes, planes, 3)]
        self.convs = nn.ModuleList(convs)
        self.relu = nn.ReLU(inplace=True)
        changes = stride != 1 or inputs != outputs
        self.downsample = conv_norm(inputs, outputs, 1, stride) if changes else None
        self.no_relu = last

    def forward(self, x: Tensor) -> Tensor:
        residual = x
        out = x
        for conv in self.convs[:-1]:
            out = self.relu(conv(out))
        out = self.convs[-1](out)
        if self.downsample is not None:
            residual = self.downsample(x)
        out += residual
        return out if self.no_relu else self.relu(out)


def layer(inputs: int, planes: int, blocks: int, stride: int = 1, bottleneck: bool = False) -> nn.Sequential:
    outputs = planes * 2 if bottleneck else planes
    first = Block(inputs, planes, stride, bottleneck, blocks == 1)
    others = (Block(outputs, planes, 1, bottleneck, index == blocks - 1) for index in range(1, blocks))
    return nn.Sequential(first, *others)


class PixelAttentionGuidedFusion(nn.Module):
    def __init__(self, channels: int, middle: int) -> None:
        super().__init__()
        self.f_x = conv_norm(channels, middle, 1)
        self.f_y = conv_norm(channels, middle, 1)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        y_q = resize(self.f_y(y), x)
        x_k = self.f_x(x)
        sim_map = torch.sigmoid(torch.sum(x_k * y_q, dim=1).unsqueeze(1))
        return (1 - sim_map) * x + sim_map * resize(y, x)


class BoundaryAttentionGuidedFusion(nn.Module):
    """The light form."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_p = conv_norm(channels, channels, 1)
        self.conv_i = conv_norm(channels, channels, 1)

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
            *conv_norm(3, planes, 3, 2, True), nn.ReLU(True), *conv_norm(planes, planes, 3, 2, True), nn.ReLU(True)
        )
        self.relu = nn.ReLU(inplace=True)
        # integral: the context
        self.layer1 = layer(planes, planes, 2)
        self.layer2 = layer(planes, planes * 2, 2, 2)
        self.layer3 = layer(planes * 2, planes * 4, 3, 2)
        self.layer4 = layer(planes * 4, planes * 8, 3, 2)
        self.layer5 = layer(planes * 8, planes * 8, 2, 2, bottleneck=True)
        # proportional: the detail
        self.compression3 = conv_norm(planes * 4, planes * 2, 1)
        self.compression4 = conv_norm(planes * 8, planes * 2, 1)
        self.pag3 = PixelAttentionGuidedFusion(planes * 2, planes)
        self.pag4 = PixelAttentionGuidedFusion(planes * 2, planes)
        self.layer3_ = layer(planes * 2, planes * 2, 2)
        self.layer4_ = layer(planes * 2, planes * 2, 2)
        self.layer5_ = layer(planes * 2, planes * 2, 1, bottleneck=True)
        # derivative: the boundary
        self.layer3_d = layer(planes * 2, planes, 1)
        self.layer4_d = layer(planes, planes, 1, bottleneck=True)
        self.layer5_d = layer(planes * 2, planes * 2, 1, bottleneck=True)
        self.diff3 = conv_norm(planes * 4, planes, 3)
        self.diff4 = conv_norm(planes * 8, planes * 2, 3)
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
