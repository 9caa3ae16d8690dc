"""The block of MobileNetV2 (Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", 2018)."""

from __future__ import annotations

from collections.abc import Callable

from architectures._convolutions import ConvBN
from torch import Tensor, nn


class InvertedResidual(nn.Module):
    """More channels, a depthwise convolution, and fewer channels again; each activation is made by `activation`."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int, activation: Callable[[], nn.Module]
    ) -> None:
        super().__init__()
        hidden = inputs * expansion
        layers: list[nn.Module] = [ConvBN(inputs, hidden, 1), activation()] if expansion != 1 else []
        layers += [ConvBN(hidden, hidden, kernel, stride, hidden), activation(), ConvBN(hidden, outputs, 1)]
        self.conv, self.residual = nn.Sequential(*layers), stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.residual else self.conv(x)
