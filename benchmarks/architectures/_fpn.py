"""The head of semantic FPN (Kirillov et al., "Panoptic Feature Pyramid Networks", 2019)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F


class SemanticFPN(nn.Module):
    """A feature pyramid whose levels are enlarged to stride 4 step by step and added."""

    def __init__(self, inputs: Sequence[int], classes: int, pyramid: int = 256, width: int = 128) -> None:
        super().__init__()
        self.lateral_convs = nn.ModuleList(nn.Conv2d(each, pyramid, 1) for each in inputs)
        self.fpn_convs = nn.ModuleList(nn.Conv2d(pyramid, pyramid, 3, padding=1) for _ in inputs)
        self.scale_heads = nn.ModuleList()
        for level in range(len(inputs)):
            layers: list[nn.Module] = []
            for index in range(max(1, level)):
                layers += [nn.Conv2d(width if index else pyramid, width, 3, padding=1, bias=False)]
                layers += [nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
                layers += [nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)] if level else []
            self.scale_heads.append(nn.Sequential(*layers))
        self.conv_seg = nn.Conv2d(width, classes, 1)

    def forward(self, maps: list[Tensor]) -> Tensor:
        laterals = [conv(maps[level]) for level, conv in enumerate(self.lateral_convs)]
        for level in range(len(laterals) - 1, 0, -1):
            size = laterals[level - 1].shape[2:]
            laterals[level - 1] = laterals[level - 1] + F.interpolate(laterals[level], size=size, mode="nearest")
        found = [head(conv(x)) for head, conv, x in zip(self.scale_heads, self.fpn_convs, laterals, strict=True)]
        return self.conv_seg(found[0] + found[1] + found[2] + found[3])
