"""Operators that move values without changing them: concatenation, padding, slices, reshapes, casts; and constants."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from slimseg.graph.channel_trace import Channels, ChannelTrace
from slimseg.graph.orders import TO_NCHW, nhwc
from slimseg.graph.shapes import Shape
from slimseg.graph.vocabulary.operator import Operator
from slimseg.graph.vocabulary.rules import from_the_front, held_channels, same_channels, same_shape

NumberType = Literal["float32", "int32", "int64"]


class Concat(nn.Module):
    """Concatenation along one dimension (1: channels of NCHW)."""

    def __init__(self, dim: int = 1) -> None:
        super().__init__()
        self.dim = from_the_front(dim)

    def forward(self, *tensors: Tensor) -> Tensor:
        return torch.cat(tensors, self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class Constant(nn.Module):
    """A value that is the same for every image, as a class token; of the image it reads only the number of images."""

    value: Tensor

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        if isinstance(value, nn.Parameter):
            self.value = value
        else:
            self.register_buffer("value", value)

    def forward(self, image: Tensor) -> Tensor:
        images = image.shape[0]
        return self.value if images == 1 else self.value.repeat(images, *(1,) * (self.value.ndim - 1))


class Pad(nn.Module):
    """Constant padding of NCHW: (left, right, top, bottom) pixels and (first, last) channels; negative values crop."""

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


class Slice(nn.Module):
    """`x[start:stop:step]` along one dimension."""

    def __init__(self, dim: int, start: int, stop: int, step: int = 1) -> None:
        super().__init__()
        self.dim = from_the_front(dim)
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
    """The same values in another shape (batch included); one length may be -1, which is inferred.

    Mobile files store tensors as (N, H, W, C). With `channels_last` a tensor of 4 dimensions is read and written in
    that order, so that a mask is flattened as in such a file; without it, in torch's order (N, C, H, W).
    """

    def __init__(self, shape: tuple[int, ...], channels_last: bool = True) -> None:
        super().__init__()
        self.shape = shape
        self.channels_last = channels_last

    def forward(self, x: Tensor) -> Tensor:
        # Training feeds several images; `shape` is for one.
        batch = x.shape[0] if -1 in self.shape else -1
        if not self.channels_last:
            return x.reshape(batch, *self.shape[1:])
        flat = nhwc(x)
        if len(self.shape) != 4:
            return flat.reshape(batch, *self.shape[1:])
        channels, height, width = self.shape[1:]
        return flat.reshape(batch, height, width, channels).permute(TO_NCHW)

    def extra_repr(self) -> str:
        return f"{self.shape}, channels_last={self.channels_last}"


class Transpose(nn.Module):
    """Dimensions in another order; `dims` as in torch's permute, for NCHW."""

    def __init__(self, dims: tuple[int, ...]) -> None:
        super().__init__()
        self.dims = dims

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(self.dims)

    def extra_repr(self) -> str:
        return f"{self.dims}"


class DepthToSpace(nn.Module):
    """(N, b·b·C, H, W) to (N, C, b·H, b·W): channel (i·b + j)·C + c goes to row i and column j of its block.

    This is TFLite's order, which ONNX calls DCR; in torch's pixel_shuffle the output channel comes first.
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


# Shapes


def _concat_shape(layer: Concat, shapes: Sequence[Shape]) -> Shape:
    others = {(*shape[: layer.dim], *shape[layer.dim + 1 :]) for shape in shapes}
    if len(others) != 1:
        raise ValueError(f"{' and '.join(map(str, shapes))} do not fit together")
    total = sum(shape[layer.dim] for shape in shapes)
    return (*shapes[0][: layer.dim], total, *shapes[0][layer.dim + 1 :])


def _constant_shape(layer: Constant, shapes: Sequence[Shape]) -> Shape:
    return tuple(layer.value.shape)


def _pad_shape(layer: Pad, shapes: Sequence[Shape]) -> Shape:
    left, right, top, bottom = layer.padding
    batch, channels, height, width = shapes[0]
    return (batch, channels + sum(layer.channels), height + top + bottom, width + left + right)


def _slice_shape(layer: Slice, shapes: Sequence[Shape]) -> Shape:
    if not 0 <= layer.start < layer.stop <= shapes[0][layer.dim]:
        raise ValueError(f"it slices {layer.start} to {layer.stop} of dimension {layer.dim} of {shapes[0]}")
    length = -(-(layer.stop - layer.start) // layer.step)
    return (*shapes[0][: layer.dim], length, *shapes[0][layer.dim + 1 :])


def _reshape_shape(layer: Reshape, shapes: Sequence[Shape]) -> Shape:
    total, known = math.prod(shapes[0]), math.prod(length for length in layer.shape if length != -1)
    shape = tuple(total // max(known, 1) if length == -1 else length for length in layer.shape)
    if math.prod(shape) != total:
        raise ValueError(f"{shapes[0]} does not fit into {layer.shape}")
    return shape


def _transpose_shape(layer: Transpose, shapes: Sequence[Shape]) -> Shape:
    if sorted(layer.dims) != list(range(len(shapes[0]))):
        raise ValueError(f"{layer.dims} is not an order of the dimensions of {shapes[0]}")
    return tuple(shapes[0][dim] for dim in layer.dims)


def _depth_to_space_shape(layer: DepthToSpace, shapes: Sequence[Shape]) -> Shape:
    batch, channels, height, width = shapes[0]
    if channels % layer.block**2:
        raise ValueError(f"{channels} channels do not divide into blocks of {layer.block}x{layer.block}")
    return (batch, channels // layer.block**2, height * layer.block, width * layer.block)


def _space_to_depth_shape(layer: SpaceToDepth, shapes: Sequence[Shape]) -> Shape:
    batch, channels, height, width = shapes[0]
    if height % layer.block or width % layer.block:
        raise ValueError(f"{height}x{width} does not divide into blocks of {layer.block}x{layer.block}")
    return (batch, channels * layer.block**2, height // layer.block, width // layer.block)


# Channels


def _concat_channels(trace: ChannelTrace, node: fx.Node, layer: Concat) -> Channels | None:
    values = trace.sources(node)
    if layer.dim == 0:
        return None
    if layer.dim == 1:
        return sum(values, ())
    for other in values[1:]:
        trace.tie(values[0], other)
    return values[0]


def _pad_channels(trace: ChannelTrace, node: fx.Node, layer: Pad) -> Channels | None:
    first, last = layer.channels
    if min(first, last) < 0:
        return None
    added = trace.fix(trace.new(first + last), f"its channels are tied to those that {node.name} adds")
    return (*added[:first], *trace.source(node), *added[first:])


def _pad_scales(trace: ChannelTrace, node: fx.Node, layer: Pad) -> Channels | None:
    """Padding with zeros keeps the scales, and added channels have scales of their own, since s · 0 = 0."""
    if layer.value != 0:
        return None
    first, last = layer.channels
    source = trace.source(node)
    kept = source[max(-first, 0) : len(source) + min(last, 0)]
    return (*trace.new(max(first, 0)), *kept, *trace.new(max(last, 0)))


def _slice_channels(trace: ChannelTrace, node: fx.Node, layer: Slice) -> Channels | None:
    """Holds for slices of rows or columns; a slice of channels refers to positions, which a removal would shift."""
    return trace.source(node) if layer.dim > 1 else None


def _slice_scales(trace: ChannelTrace, node: fx.Node, layer: Slice) -> Channels | None:
    if layer.dim == 0:
        return None
    source = trace.source(node)
    return source[layer.start : layer.stop : layer.step] if layer.dim == 1 else source


def _reshape_scales(trace: ChannelTrace, node: fx.Node, layer: Reshape) -> Channels | None:
    """Holds for (1, C, 1, 1) to (1, C) and back, as in a squeeze-and-excitation gate of linear layers."""
    before, after = (trace.shape(each) for each in (node.all_input_nodes[0], node))
    flat = min(len(before), len(after)) >= 2 and before[1] == after[1] == math.prod(before)
    return trace.source(node) if flat else None


def _reshape_channels(trace: ChannelTrace, node: fx.Node, layer: Reshape) -> Channels | None:
    """As `_reshape_scales`; the channels count as held, since the layer's shape stores their number."""
    return None if _reshape_scales(trace, node, layer) is None else held_channels(trace, node, layer)


def _cut_reshape(layer: Reshape, dropped: list[int]) -> None:
    batch, channels, *pixels = layer.shape
    layer.shape = (batch, channels if channels == -1 else channels - len(dropped), *pixels)


def _depth_to_space_scales(trace: ChannelTrace, node: fx.Node, layer: DepthToSpace) -> Channels:
    source, count = trace.source(node), trace.count(node)
    for start in range(count, len(source), count):
        trace.tie(source[:count], source[start : start + count])
    return source[:count]


def _space_to_depth_scales(trace: ChannelTrace, node: fx.Node, layer: SpaceToDepth) -> Channels:
    return trace.source(node) * layer.block**2


OPERATORS = (
    Operator(Concat, _concat_shape, channels=_concat_channels, scales=_concat_channels),
    Operator(Constant, _constant_shape),
    Operator(Pad, _pad_shape, channels=_pad_channels, scales=_pad_scales),
    Operator(Slice, _slice_shape, channels=_slice_channels, scales=_slice_scales),
    Operator(Reshape, _reshape_shape, channels=_reshape_channels, scales=_reshape_scales, cut_outputs=_cut_reshape),
    Operator(Transpose, _transpose_shape),
    Operator(DepthToSpace, _depth_to_space_shape, scales=_depth_to_space_scales),
    Operator(SpaceToDepth, _space_to_depth_shape, scales=_space_to_depth_scales),
    Operator(Cast, same_shape, channels=same_channels),
)
