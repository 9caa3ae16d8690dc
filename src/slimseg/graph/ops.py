"""The vocabulary: every module that a canonical node may call.

torch.nn has most of them; those it lacks (addition, concatenation, resize, ...) are below. A node that calls
anything else is opaque: it runs and is timed, and techniques leave it alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ResizeMode = Literal["bilinear", "nearest", "nearest-exact"]
Coordinates = Literal["half_pixel", "align_corners", "asymmetric"]
Reduction = Literal["mean", "sum", "max", "min"]
NumberType = Literal["float32", "int32", "int64"]


def _from_the_front(dim: int) -> int:
    """One number for one dimension: rules that ask for dimension 1 would not know -3 for the same.

    Raises:
        ValueError: it is counted from the end.
    """
    if dim < 0:
        raise ValueError(f"dimension {dim} is counted from the end: give it as 0 (batch), 1 (channels), 2 or 3")
    return dim


class Add(nn.Module):
    """Elementwise sum of two tensors, with broadcasting."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a + b


class Subtract(nn.Module):
    """Elementwise difference of two tensors, with broadcasting."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a - b


class Multiply(nn.Module):
    """Elementwise product of two tensors, with broadcasting (a squeeze-and-excitation gate, for example)."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a * b


class Divide(nn.Module):
    """Elementwise quotient of two tensors, with broadcasting."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a / b


class Maximum(nn.Module):
    """Elementwise maximum of two tensors, with broadcasting."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.maximum(a, b)


class Minimum(nn.Module):
    """Elementwise minimum of two tensors, with broadcasting."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.minimum(a, b)


class Unary(nn.Module):
    """One of the plain functions of one tensor, by torch's name for it."""

    FUNCTIONS: ClassVar[dict[str, Callable[[Tensor], Tensor]]] = {
        "abs": torch.abs,
        "exp": torch.exp,
        "log": torch.log,
        "neg": torch.neg,
        "sqrt": torch.sqrt,
        "rsqrt": torch.rsqrt,
        "square": torch.square,
    }

    def __init__(self, function: str) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.FUNCTIONS[self.function](x)

    def extra_repr(self) -> str:
        return self.function


class SpatialPReLU(nn.Module):
    """PReLU with a slope of its own for every value of a (N, C, H, W) tensor: slopes (C, H, W)."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(x < 0, x * self.weight, x)


class Affine(nn.Module):
    """`x * scale + shift` ; the constants broadcast to (C, H, W): (), (C, 1, 1), ...; one may be None."""

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
        self.dim = _from_the_front(dim)

    def forward(self, *tensors: Tensor) -> Tensor:
        return torch.cat(tensors, self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class Pad(nn.Module):
    """Constant padding of (left, right, top, bottom) pixels of NCHW, and of channels (first, last); negative: crop."""

    def __init__(
        self, padding: tuple[int, int, int, int], value: float = 0.0, channels: tuple[int, int] = (0, 0)
    ) -> None:
        super().__init__()
        self.padding = padding
        self.value = value
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x, (*self.padding, *self.channels) if any(self.channels) else self.padding, value=self.value)

    def extra_repr(self) -> str:
        return f"{self.padding}, value={self.value}, channels={self.channels}"


class CroppedConvTranspose2d(nn.ConvTranspose2d):
    """Transposed convolution whose result loses `crop` = (left, right, top, bottom) pixels, beside its own padding.

    TFLite's SAME and ONNX's asymmetric pads cut more on one side than on the other, which torch's padding cannot say.
    """

    def __init__(self, *args: Any, crop: tuple[int, int, int, int], **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.crop = crop

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        full = super().forward(input, output_size)
        left, right, top, bottom = self.crop
        return full[..., top : full.shape[2] - bottom, left : full.shape[3] - right]

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, crop={self.crop}"  # type: ignore[no-untyped-call]


class Resize(nn.Module):
    """Resize of NCHW to `size` (height, width) pixels.

    `coordinates` says where a bilinear resize reads for pixel y of a side resized from h to H pixels:
    (y + ½)·h/H − ½ ("half_pixel"), y·(h−1)/(H−1) ("align_corners") or y·h/H ("asymmetric", TFLite's old default).
    The nearest modes have torch's meaning, half_pixel for "nearest-exact" and asymmetric for "nearest"; only for
    "nearest" with "align_corners" do coordinates matter: the position above, rounded half up.
    """

    def __init__(
        self, size: tuple[int, int], mode: ResizeMode = "bilinear", coordinates: Coordinates = "half_pixel"
    ) -> None:
        super().__init__()
        self.size = size
        self.mode = mode
        self.coordinates = coordinates

    def forward(self, x: Tensor) -> Tensor:
        if self.mode != "bilinear":
            if self.coordinates == "align_corners":
                return _nearest_align_corners(x, self.size)
            return F.interpolate(x, self.size, mode=self.mode)
        if self.coordinates == "asymmetric":
            return _bilinear_asymmetric(x, self.size)
        return F.interpolate(x, self.size, mode="bilinear", align_corners=self.coordinates == "align_corners")

    def extra_repr(self) -> str:
        return f"{self.size}, mode={self.mode!r}, coordinates={self.coordinates!r}"


def _nearest_align_corners(x: Tensor, size: tuple[int, int]) -> Tensor:
    for dim, length in zip((2, 3), size, strict=True):
        scale = (x.shape[dim] - 1) / max(length - 1, 1)
        index = torch.floor(torch.arange(length, device=x.device) * scale + 0.5).long()
        x = x.index_select(dim, index.clamp(max=x.shape[dim] - 1))
    return x


def _bilinear_asymmetric(x: Tensor, size: tuple[int, int]) -> Tensor:
    for dim, length in zip((2, 3), size, strict=True):
        position = torch.arange(length, device=x.device, dtype=x.dtype) * (x.shape[dim] / length)
        low = position.floor().long()
        high = (low + 1).clamp(max=x.shape[dim] - 1)
        share = (position - low).reshape((-1, 1) if dim == 2 else (-1,))
        below = x.index_select(dim, low)
        x = below + (x.index_select(dim, high) - below) * share
    return x


class ArgMax(nn.Module):
    """Index of the largest channel: (N, C, H, W) to (N, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.argmax(1)


class Slice(nn.Module):
    """`x[start:stop:step]` along one dimension."""

    def __init__(self, dim: int, start: int, stop: int, step: int = 1) -> None:
        super().__init__()
        self.dim = _from_the_front(dim)
        self.start = start
        self.stop = stop
        self.step = step

    def forward(self, x: Tensor) -> Tensor:
        part = x.narrow(self.dim, self.start, self.stop - self.start)
        if self.step == 1:
            return part
        return part[(slice(None),) * self.dim + (slice(None, None, self.step),)]

    def extra_repr(self) -> str:
        return f"dim={self.dim}, start={self.start}, stop={self.stop}, step={self.step}"


class Reshape(nn.Module):
    """The same values in another shape (batch included); one length may be -1, to be worked out.

    A mobile file keeps (N, H, W, C) in memory. With `channels_last` a tensor of 4 dimensions is read, and given, in
    that order, so that a mask flattened there is flattened alike here; without, in torch's own.
    """

    def __init__(self, shape: tuple[int, ...], channels_last: bool = True) -> None:
        super().__init__()
        self.shape = shape
        self.channels_last = channels_last

    def forward(self, x: Tensor) -> Tensor:
        # Training feeds several images, the shape is that of one.
        batch = x.shape[0] if -1 in self.shape else -1
        if not self.channels_last:
            return x.reshape(batch, *self.shape[1:])
        flat = x.permute(0, 2, 3, 1) if x.ndim == 4 else x
        if len(self.shape) != 4:
            return flat.reshape(batch, *self.shape[1:])
        channels, height, width = self.shape[1:]
        return flat.reshape(batch, height, width, channels).permute(0, 3, 1, 2)

    def extra_repr(self) -> str:
        return f"{self.shape}, channels_last={self.channels_last}"


class Transpose(nn.Module):
    """Dimensions in another order; `dims` as torch's permute has them, NCHW."""

    def __init__(self, dims: tuple[int, ...]) -> None:
        super().__init__()
        self.dims = dims

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(self.dims)

    def extra_repr(self) -> str:
        return f"{self.dims}"


class Reduce(nn.Module):
    """Mean, sum, maximum or minimum over some dimensions."""

    def __init__(self, kind: Reduction, dims: tuple[int, ...], keepdim: bool) -> None:
        super().__init__()
        self.kind = kind
        self.dims = tuple(map(_from_the_front, dims))
        self.keepdim = keepdim

    def forward(self, x: Tensor) -> Tensor:
        function = {"mean": torch.mean, "sum": torch.sum, "max": torch.amax, "min": torch.amin}[self.kind]
        return function(x, self.dims, self.keepdim)  # type: ignore[operator, no-any-return]

    def extra_repr(self) -> str:
        return f"{self.kind}, dims={self.dims}, keepdim={self.keepdim}"


class DepthToSpace(nn.Module):
    """(N, b·b·C, H, W) to (N, C, b·H, b·W): channel (i·b + j)·C + c goes to row i and column j of its block.

    TFLite's order (ONNX calls it DCR); torch's pixel_shuffle has the output channel first.
    """

    def __init__(self, block: int) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        b, c = self.block, channels // self.block**2
        blocks = x.reshape(batch, b, b, c, height, width).permute(0, 3, 4, 1, 5, 2)
        return blocks.reshape(batch, c, height * b, width * b)

    def extra_repr(self) -> str:
        return f"{self.block}"


class SpaceToDepth(nn.Module):
    """The inverse of DepthToSpace: (N, C, b·H, b·W) to (N, b·b·C, H, W)."""

    def __init__(self, block: int) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        b = self.block
        blocks = x.reshape(batch, channels, height // b, b, width // b, b).permute(0, 3, 5, 1, 2, 4)
        return blocks.reshape(batch, b * b * channels, height // b, width // b)

    def extra_repr(self) -> str:
        return f"{self.block}"


class Cast(nn.Module):
    """The same values as numbers of another type."""

    def __init__(self, dtype: NumberType) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        return x.to(getattr(torch, self.dtype))

    def extra_repr(self) -> str:
        return self.dtype


CONVOLUTIONS: tuple[type[nn.Module], ...] = (nn.Conv2d, nn.ConvTranspose2d)
Mixing = nn.Conv2d | nn.ConvTranspose2d | nn.Linear
MIXING = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)  # their outputs are sums over input channels
PLAIN_ACTIVATIONS: tuple[type[nn.Module], ...] = (  # nothing learnt: they fit any number of channels
    nn.ReLU,
    nn.ReLU6,
    nn.Hardtanh,
    nn.LeakyReLU,
    nn.Hardswish,
    nn.Hardsigmoid,
    nn.SiLU,
    nn.Sigmoid,
    nn.Tanh,
    nn.GELU,
    nn.ELU,
)
ACTIVATIONS: tuple[type[nn.Module], ...] = (*PLAIN_ACTIVATIONS, nn.PReLU, SpatialPReLU)
POOLINGS: tuple[type[nn.Module], ...] = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)
VOCABULARY: tuple[type[nn.Module], ...] = (
    *CONVOLUTIONS,
    nn.Linear,
    nn.BatchNorm2d,
    *ACTIVATIONS,
    *POOLINGS,
    nn.Softmax,
    Unary,
    Add,
    Subtract,
    Multiply,
    Divide,
    Maximum,
    Minimum,
    Affine,
    Concat,
    Pad,
    Resize,
    Reduce,
    ArgMax,
    Slice,
    Reshape,
    Transpose,
    DepthToSpace,
    SpaceToDepth,
    Cast,
)
