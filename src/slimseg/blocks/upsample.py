"""Convolution at the low resolution, then a resize: an alternative to a transposed convolution.

Odena et al., "Deconvolution and Checkerboard Artifacts", 2016, use resize and convolution instead of transposed
convolution. Here the convolution comes first, on fewer pixels.
"""

from __future__ import annotations

from torch import Tensor, nn

from slimseg.graph.ops import Resize, ResizeMode


class ConvUpsample(nn.Module):
    """resize(activation(convolution(x))): (N, in, H, W) to (N, out, *size); `conv` keeps height and width."""

    def __init__(
        self, conv: nn.Module, size: tuple[int, int], mode: ResizeMode = "bilinear", activation: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.conv = conv
        self.activation = activation
        self.resize = Resize(size, mode)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if self.activation is not None:
            x = self.activation(x)
        return self.resize(x)  # type: ignore[no-any-return]
