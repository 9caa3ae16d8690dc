"""SFNet (Li et al., "Semantic Flow for Fast and Accurate Scene Parsing", 2020).

ResNet-18 and a feature pyramid whose levels are aligned by learned flows: 19 classes at 256x256, 13.8 million
parameters (the paper counts 12.9).
"""

from __future__ import annotations

import torch
from architectures._convolutions import ConvBNReLU
from architectures._resnet import ResNet18
from torch import Tensor, nn
from torch.nn import functional as F

SIZE = (256, 256)


class PSPModule(nn.Module):
    def __init__(self, inputs: int, width: int, bins: tuple[int, ...] = (1, 2, 3, 6)) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d((b, b)), ConvBNReLU(inputs, width, 1)) for b in bins
        )
        self.bottleneck = ConvBNReLU(inputs + len(bins) * width, width)

    def forward(self, x: Tensor) -> Tensor:
        h, w = x.size(2), x.size(3)
        priors = [F.interpolate(stage(x), size=(h, w), mode="bilinear", align_corners=True) for stage in self.stages]
        return self.bottleneck(torch.cat([*priors, x], 1))


class FlowAlignment(nn.Module):
    """Moves the values of a small map to where a learned flow says, on the grid of a larger one."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.down_h = nn.Conv2d(width, width // 2, 1, bias=False)
        self.down_l = nn.Conv2d(width, width // 2, 1, bias=False)
        self.flow_make = nn.Conv2d(width, 2, 3, padding=1, bias=False)

    @staticmethod
    def flow_warp(x: Tensor, flow: Tensor, size: tuple[int, int]) -> Tensor:
        out_h, out_w = size
        n = x.size(0)
        norm = torch.tensor([[[[out_w, out_h]]]]).type_as(x).to(x.device)
        rows = torch.linspace(-1.0, 1.0, out_h).view(-1, 1).repeat(1, out_w)
        columns = torch.linspace(-1.0, 1.0, out_w).repeat(out_h, 1)
        grid = torch.cat((columns.unsqueeze(2), rows.unsqueeze(2)), 2)
        grid = grid.repeat(n, 1, 1, 1).type_as(x).to(x.device)
        return F.grid_sample(x, grid + flow.permute(0, 2, 3, 1) / norm, align_corners=True)

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        size = low.shape[2], low.shape[3]
        enlarged = F.interpolate(self.down_h(high), size=size, mode="bilinear", align_corners=True)
        flow = self.flow_make(torch.cat([enlarged, self.down_l(low)], 1))
        return self.flow_warp(high, flow, size)


class SFNet(nn.Module):
    def __init__(self, classes: int = 19, width: int = 128) -> None:
        super().__init__()
        self.backbone, self.ppm = ResNet18(), PSPModule(512, width)
        self.fpn_in = nn.ModuleList(ConvBNReLU(inputs, width, 1) for inputs in (64, 128, 256))
        self.fpn_out = nn.ModuleList(ConvBNReLU(width, width) for _ in range(3))
        self.fpn_out_align = nn.ModuleList(FlowAlignment(width) for _ in range(3))
        self.conv_last = nn.Sequential(ConvBNReLU(4 * width, width), nn.Conv2d(width, classes, 1))

    def forward(self, x: Tensor) -> Tensor:
        maps = self.backbone(x)
        f = self.ppm(maps[-1])
        found = [f]
        for level in (2, 1, 0):
            lateral = self.fpn_in[level](maps[level])
            f = lateral + self.fpn_out_align[level](lateral, f)
            found.append(self.fpn_out[level](f))
        found.reverse()
        size = found[0].size()[2:]
        fused = [found[0]]
        for each in found[1:]:
            fused.append(F.interpolate(each, size, mode="bilinear", align_corners=True))
        out = self.conv_last(torch.cat(fused, 1))
        return F.interpolate(out, size=x.size()[2:], mode="bilinear", align_corners=True)


def build() -> nn.Module:
    return SFNet()
