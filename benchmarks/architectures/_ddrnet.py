"""The residual blocks of DDRNet (Hong et al., "Deep Dual-resolution Networks for Real-time and Accurate Semantic
Segmentation of Road Scenes", 2021), which PIDNet has, too.
"""

from __future__ import annotations

from architectures._convolutions import ConvBN
from torch import Tensor, nn


class Block(nn.Module):
    """Basic block (two 3x3), or bottleneck that doubles the channels (1x1, 3x3, 1x1)."""

    def __init__(self, inputs: int, planes: int, stride: int, bottleneck: bool, last: bool) -> None:
        super().__init__()
        outputs = planes * 2 if bottleneck else planes
        if bottleneck:
            convs = [ConvBN(inputs, planes, 1), ConvBN(planes, planes, 3, stride), ConvBN(planes, outputs, 1)]
        else:
            convs = [ConvBN(inputs, planes, 3, stride), ConvBN(planes, planes, 3)]
        self.convs = nn.ModuleList(convs)
        self.relu = nn.ReLU(inplace=True)
        changes = stride != 1 or inputs != outputs
        self.downsample = ConvBN(inputs, outputs, 1, stride) if changes else None
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
