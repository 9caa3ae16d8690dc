"""The vocabulary: every module that a canonical node may call.

torch.nn has most of them; those it lacks (addition, concatenation, resize, ...) are below. A node that calls
anything else is opaque: it runs and is timed, and techniques leave it alone.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ResizeMode = Literal["bilinear", "nearest", "nearest-exact"]


class Add(nn.Module):
    """Elementwise sum of two tensors, with broadcasting."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a + b


class Multiply(nn.Module):
    """Elementwise product of two tensors, with broadcasting (a squeeze-and-excitation gate, for example)."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a * b


class Affine(nn.Module):
    """`x * scale + shift` with constants that are numbers or one per channel: (), (1,) or (channels, 1, 1)."""

    scale: Tensor | None
    shift: Tensor | None

    def __init__(self, scale: Tensor | None = None, shift: Tensor | None = None) -> None:
        super().__init__()
        for name, value in (("scale", scale), ("shift", shift)):
            if isinstance(value, nn.Parameter):
                self.register_parameter(name, value)
            else:
                self.register_buffer(name, value)

    def forward(self, x: Tensor) -> Tensor:
        if self.scale is not None:
            x = x * self.scale
        return x if self.shift is None else x + self.shift


class Concat(nn.Module):
    """Concatenation along one dimension (1: channels of NCHW)."""

    def __init__(self, dim: int = 1) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, *tensors: Tensor) -> Tensor:
        return torch.cat(tensors, self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class Pad(nn.Module):
    """Constant padding of (left, right, top, bottom) pixels of NCHW."""

    def __init__(self, padding: tuple[int, int, int, int], value: float = 0.0) -> None:
        super().__init__()
        self.padding = padding
        self.value = value

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x, self.padding, value=self.value)

    def extra_repr(self) -> str:
        return f"{self.padding}, value={self.value}"


class Resize(nn.Module):
    """Resize of NCHW to `size` (height, width) pixels."""

    def __init__(self, size: tuple[int, int], mode: ResizeMode = "bilinear", align_corners: bool = False) -> None:
        super().__init__()
        self.size = size
        self.mode = mode
        self.align_corners = align_corners

    def forward(self, x: Tensor) -> Tensor:
        if self.mode == "bilinear":
            return F.interpolate(x, self.size, mode="bilinear", align_corners=self.align_corners)
        return F.interpolate(x, self.size, mode=self.mode)

    def extra_repr(self) -> str:
        return f"{self.size}, mode={self.mode!r}, align_corners={self.align_corners}"


class ArgMax(nn.Module):
    """Index of the largest channel: (N, C, H, W) to (N, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.argmax(1)


class Slice(nn.Module):
    """`x[start:stop]` along one dimension."""

    def __init__(self, dim: int, start: int, stop: int) -> None:
        super().__init__()
        self.dim = dim
        self.start = start
        self.stop = stop

    def forward(self, x: Tensor) -> Tensor:
        return x.narrow(self.dim, self.start, self.stop - self.start)

    def extra_repr(self) -> str:
        return f"dim={self.dim}, start={self.start}, stop={self.stop}"


CONVOLUTIONS: tuple[type[nn.Module], ...] = (nn.Conv2d, nn.ConvTranspose2d)
ACTIVATIONS: tuple[type[nn.Module], ...] = (
    nn.ReLU,
    nn.ReLU6,
    nn.Hardtanh,
    nn.LeakyReLU,
    nn.PReLU,
    nn.Hardswish,
    nn.Hardsigmoid,
    nn.SiLU,
    nn.Sigmoid,
    nn.Tanh,
    nn.GELU,
)
POOLINGS: tuple[type[nn.Module], ...] = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)
VOCABULARY: tuple[type[nn.Module], ...] = (
    *CONVOLUTIONS,
    nn.Linear,
    nn.BatchNorm2d,
    *ACTIVATIONS,
    *POOLINGS,
    nn.Softmax,
    Add,
    Multiply,
    Affine,
    Concat,
    Pad,
    Resize,
    ArgMax,
    Slice,
)
