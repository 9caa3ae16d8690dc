"""ESPNetv2 (Mehta et al., "ESPNetv2: A Light-weight, Power Efficient, and General Purpose CNN", 2018), at 512x512.

Scale 1.5 with the segmentation head.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIZE = (512, 512)
CONFIG = (32, 96, 192, 384)
DILATIONS = {3: 1, 5: 2, 7: 3, 9: 4, 11: 5, 13: 6}  # by receptive field


def conv(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1, dilation: int = 1) -> nn.Conv2d:
    padding = (kernel - 1) // 2 * dilation
    return nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, groups, bias=False)


class CBR(nn.Sequential):
    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        layer = conv(inputs, outputs, kernel, stride, groups)
        super().__init__(layer, nn.BatchNorm2d(outputs), nn.PReLU(outputs))


class EESP(nn.Module):
    """Depthwise convolutions of growing dilation, summed one after another, between grouped 1x1 convolutions."""

    def __init__(
        self, inputs: int, outputs: int, stride: int = 1, k: int = 4, limit: int = 7, average: bool = False
    ) -> None:
        super().__init__()
        n = outputs // k
        self.proj_1x1 = CBR(inputs, n, groups=k)
        fields = sorted(3 + 2 * i if 3 + 2 * i <= limit else 3 for i in range(k))
        self.spp_dw = nn.ModuleList(conv(n, n, 3, stride, n, DILATIONS[field]) for field in fields)
        self.conv_1x1_exp = nn.Sequential(conv(outputs, outputs, groups=k), nn.BatchNorm2d(outputs))
        self.br_after_cat = nn.Sequential(nn.BatchNorm2d(outputs), nn.PReLU(outputs))
        self.module_act = nn.PReLU(outputs)
        self.linear = stride == 2 and average

    def forward(self, x: Tensor) -> Tensor:
        output1 = self.proj_1x1(x)
        output = [self.spp_dw[0](output1)]
        for k in range(1, len(self.spp_dw)):
            output.append(self.spp_dw[k](output1) + output[k - 1])
        expanded = self.conv_1x1_exp(self.br_after_cat(torch.cat(output, 1)))
        if self.linear:
            return expanded
        if expanded.size() == x.size():
            expanded = expanded + x
        return self.module_act(expanded)


class DownSampler(nn.Module):
    """Average pooling beside a strided EESP; the image, pooled to the same size, is added."""

    def __init__(self, inputs: int, outputs: int, limit: int) -> None:
        super().__init__()
        self.eesp = EESP(inputs, outputs - inputs, stride=2, limit=limit, average=True)
        self.avg = nn.AvgPool2d(kernel_size=3, padding=1, stride=2)
        self.inp_reinf = nn.Sequential(CBR(3, 3, 3), conv(3, outputs), nn.BatchNorm2d(outputs))
        self.act = nn.PReLU(outputs)

    def forward(self, x: Tensor, image: Tensor) -> Tensor:
        avg_out = self.avg(x)
        output = torch.cat([avg_out, self.eesp(x)], 1)
        w1 = avg_out.size(2)
        while True:
            image = F.avg_pool2d(image, kernel_size=3, padding=1, stride=2)
            w2 = image.size(2)
            if w2 == w1:
                break
        return self.act(output + self.inp_reinf(image))


class PSPModule(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList(conv(channels, channels, 3, groups=channels) for _ in range(4))
        self.project = CBR(channels * 5, channels)

    def forward(self, feats: Tensor) -> Tensor:
        h, w = feats.size(2), feats.size(3)
        out = [feats]
        for stage in self.stages:
            feats = F.avg_pool2d(feats, kernel_size=3, stride=2, padding=1)
            out.append(F.interpolate(input=stage(feats), size=(h, w), mode="bilinear", align_corners=True))
        return self.project(torch.cat(out, dim=1))


def double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)


class ESPNetV2(nn.Module):
    def __init__(self, classes: int = 20) -> None:
        super().__init__()
        c1, c2, c3, c4 = CONFIG
        self.level1 = CBR(3, c1, 3, 2)
        self.level2_0 = DownSampler(c1, c2, 13)
        self.level3_0 = DownSampler(c2, c3, 11)
        self.level3 = nn.ModuleList(EESP(c3, c3, limit=9) for _ in range(3))
        self.level4_0 = DownSampler(c3, c4, 9)
        self.level4 = nn.ModuleList(EESP(c4, c4, limit=7) for _ in range(7))
        self.proj_l4 = CBR(c4, c3)
        self.psp = nn.Sequential(EESP(2 * c3, c3, limit=7), PSPModule(c3))
        self.project_l3 = nn.Sequential(nn.Dropout2d(p=0.2), conv(c3, classes))
        self.act_l3 = nn.Sequential(nn.BatchNorm2d(classes), nn.PReLU(classes))
        self.project_l2 = CBR(c2 + classes, classes)
        self.project_l1 = nn.Sequential(nn.Dropout2d(p=0.2), conv(c1 + classes, classes))

    def forward(self, image: Tensor) -> Tensor:
        out_l1 = self.level1(image)
        out_l2 = self.level2_0(out_l1, image)
        out_l3 = self.level3_0(out_l2, image)
        for layer in self.level3:
            out_l3 = layer(out_l3)
        out_l4 = self.level4_0(out_l3, image)
        for layer in self.level4:
            out_l4 = layer(out_l4)
        merged_l3 = self.psp(torch.cat([out_l3, double(self.proj_l4(out_l4))], 1))
        out_l3 = self.act_l3(self.project_l3(merged_l3))
        out_l2 = self.project_l2(torch.cat([out_l2, double(out_l3)], 1))
        return double(self.project_l1(torch.cat([out_l1, double(out_l2)], 1)))


def build() -> nn.Module:
    return ESPNetV2()
