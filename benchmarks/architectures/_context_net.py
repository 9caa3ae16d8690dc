"""Blocks of ContextNet (Poudel et al., "ContextNet: Exploring Context and Detail for Semantic Segmentation in
Real-time", 2018), which Fast-SCNN has, too.
"""

from __future__ import annotations

from architectures._convolutions import ConvBN, ConvBNReLU
from torch import Tensor, nn


def separable(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(ConvBNReLU(inputs, inputs, 3, stride, inputs), ConvBNReLU(inputs, outputs, 1))


class Bottleneck(nn.Module):
    """Inverted residual with linear output; it expands the channels even if by a factor of one."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int) -> None:
        super().__init__()
        middle = inputs * expansion
        self.shortcut = stride == 1 and inputs == outputs
        self.block = nn.Sequential(
            ConvBNReLU(inputs, middle, 1), ConvBNReLU(middle, middle, 3, stride, middle), ConvBN(middle, outputs, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        out = self.block(x)
        return x + out if self.shortcut else out
