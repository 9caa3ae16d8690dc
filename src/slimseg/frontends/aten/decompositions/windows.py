"""Windows: unfolding into columns and back, layers of one dimension, pooling with other settings."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from slimseg.frontends.aten.call import Call, pair

Pair = Sequence[int]
_MOST_TAPS = 64  # positions of a window, each of which becomes a layer
_LOWEST = float(torch.finfo(torch.float32).min)


def unfold(self: Tensor, kernel_size: Pair, dilation: Pair, padding: Pair, stride: Pair) -> Tensor:
    """(N, C, H, W) to (N, C·k·k, windows): every window a column."""
    batch, channels, height, width = self.shape
    (kh, kw), (sh, sw) = kernel_size, stride
    if (kh, kw) == (sh, sw) and not any(padding) and set(dilation) == {1}:
        rows, columns = height // kh, width // kw
        whole = self[:, :, : rows * kh, : columns * kw]
        apart = whole.reshape(batch, channels, rows, kh, columns, kw)
        return apart.permute(0, 1, 3, 5, 2, 4).reshape(batch, channels * kh * kw, -1)
    padded = F.pad(self, (padding[1], padding[1], padding[0], padding[0])) if any(padding) else self
    rows, columns = (
        (length - spread * (kernel - 1) - 1) // step + 1
        for length, kernel, spread, step in zip(padded.shape[2:], kernel_size, dilation, stride, strict=True)
    )
    if rows * columns < kh * kw and set(dilation) == {1}:
        _require_few(rows * columns)
        corners = [(i * sh, j * sw) for i in range(rows) for j in range(columns)]
        windows = [padded[:, :, top : top + kh, left : left + kw] for top, left in corners]
        return torch.cat([window.reshape(batch, channels * kh * kw, 1) for window in windows], 2)
    _require_few(kh * kw)
    taps = [
        padded[
            :,
            :,
            i * dilation[0] : i * dilation[0] + (rows - 1) * sh + 1 : sh,
            j * dilation[1] : j * dilation[1] + (columns - 1) * sw + 1 : sw,
        ].reshape(batch, channels, 1, rows * columns)
        for i in range(kh)
        for j in range(kw)
    ]
    return torch.cat(taps, 2).reshape(batch, channels * kh * kw, rows * columns)


def _require_few(taps: int) -> None:
    if taps > _MOST_TAPS:
        raise NotImplementedError("large windows")


def fold(self: Tensor, output_size: Pair, kernel_size: Pair, dilation: Pair, padding: Pair, stride: Pair) -> Tensor:
    """The inverse of `unfold`; values of windows that overlap are added, by a transposed convolution."""
    batch, columns, _ = self.shape
    (height, width), (kh, kw), (sh, sw) = output_size, kernel_size, stride
    channels = columns // (kh * kw)
    if (kh, kw) == (sh, sw) and not any(padding) and set(dilation) == {1}:
        rows, columns = height // kh, width // kw
        apart = self.reshape(batch, channels, kh, kw, rows, columns)
        whole = apart.permute(0, 1, 4, 2, 5, 3).reshape(batch, channels, rows * kh, columns * kw)
        return F.pad(whole, (0, width - columns * kw, 0, height - rows * kh))
    rows, columns = (
        (length + 2 * around - spread * (kernel - 1) - 1) // step + 1
        for length, kernel, spread, around, step in zip(
            output_size, kernel_size, dilation, padding, stride, strict=True
        )
    )
    if sh != sw:
        raise NotImplementedError("steps of two lengths")
    _require_few(kh * kw)
    # The place s·r + i of tap i of window r is row r + i // s of the map that holds every s-th row from i % s on.
    size = [-(-(length + 2 * around) // sh) for length, around in zip(output_size, padding, strict=True)]
    taps = self.reshape(batch, channels, kh * kw, rows * columns)
    parts: dict[int, Tensor] = {}
    for number in range(kh * kw):
        (down, top), (right, left) = (
            divmod(place * spread, sh) for place, spread in zip(divmod(number, kw), dilation, strict=True)
        )
        tap = taps[:, :, number].reshape(batch, channels, rows, columns)
        placed = F.pad(tap, (right, size[1] - right - columns, down, size[0] - down - rows))
        part = top * sh + left
        parts[part] = parts[part] + placed if part in parts else placed
    total = parts[0]
    if sh > 1:
        none = torch.zeros(1, channels, *size)
        maps = torch.cat([parts.get(part, none) for part in range(sh * sh)], 1)
        apart = maps.reshape(batch, sh * sh, channels, *size).transpose(1, 2).flatten(1, 2)
        total = F.pixel_shuffle(apart, sh)
    top, left = padding
    return total[:, :, top : top + height, left : left + width]


def convolution(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    transposed: bool,
    output_padding: Pair,
    groups: int,
    *rest: bool,
    **more: bool,
) -> Tensor:
    given = (input, weight, bias, [*stride], [*padding])
    if transposed:
        function = (torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d)[len(padding) - 1]
        return function(*given, [*output_padding], groups, [*dilation])
    plain = (torch.conv1d, torch.conv2d, torch.conv3d)[len(padding) - 1]
    return plain(*given, [*dilation], groups)


def convolution_1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = (1,),
    padding: Pair = (0,),
    dilation: Pair = (1,),
    groups: int = 1,
) -> Tensor:
    """A convolution of a map with one row."""
    rows = F.conv2d(
        input.unsqueeze(2), weight.unsqueeze(2), bias, (1, stride[0]), (0, padding[0]), (1, dilation[0]), groups
    )
    return rows.squeeze(2)


def transposed_convolution_1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = (1,),
    padding: Pair = (0,),
    output_padding: Pair = (0,),
    groups: int = 1,
    dilation: Pair = (1,),
) -> Tensor:
    settings = [(1, stride[0]), (0, padding[0]), (0, output_padding[0]), groups, (1, dilation[0])]
    rows = F.conv_transpose2d(input.unsqueeze(2), weight.unsqueeze(2), bias, *settings)  # type: ignore[arg-type]
    return rows.squeeze(2)


def average_pool(
    self: Tensor,
    kernel_size: Pair,
    stride: Pair = (),
    padding: Pair = (0, 0),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """With a divisor of its own: the mean over all of the window, zeros outside the map included, times a factor."""
    if divisor_override is None or ceil_mode:
        raise NotImplementedError("the handler's own")
    kernel = [*kernel_size] * (2 if len(kernel_size) == 1 else 1)
    means = F.avg_pool2d(self, kernel, [*stride] or kernel, [*padding], False, True)
    return means * (math.prod(kernel) / divisor_override)


def average_pool_1d(
    self: Tensor,
    kernel_size: Pair,
    stride: Pair = (),
    padding: Pair = (0,),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    step = (1, (stride or kernel_size)[0])
    row = self.unsqueeze(2)
    return F.avg_pool2d(row, (1, kernel_size[0]), step, (0, padding[0]), ceil_mode, count_include_pad).squeeze(2)


def max_pool_1d(
    self: Tensor,
    kernel_size: Pair,
    stride: Pair = (),
    padding: Pair = (0,),
    dilation: Pair = (1,),
    ceil_mode: bool = False,
) -> Tensor:
    step = (1, (stride or kernel_size)[0])
    row = self.unsqueeze(2)
    return F.max_pool2d(row, (1, kernel_size[0]), step, (0, padding[0]), (1, dilation[0]), ceil_mode).squeeze(2)


def dilated_max_pool(
    self: Tensor,
    kernel_size: Pair,
    stride: Pair = (),
    padding: Pair = (0, 0),
    dilation: Pair = (1, 1),
    ceil_mode: bool = False,
) -> Tensor:
    """The maximum of shifted maps, along the columns of the windows and then along their rows."""
    kernel, steps, around, spread = (pair(each) for each in (kernel_size, stride or kernel_size, padding, dilation))
    _require_few(sum(kernel))
    x = F.pad(self, (around[1], around[1], around[0], around[0]), value=_LOWEST) if any(around) else self
    for dim in (2, 3):
        taps, step, gap = kernel[dim - 2], steps[dim - 2], spread[dim - 2]
        windows = (x.shape[dim] - gap * (taps - 1) - 1) // step + 1
        places = [slice(i * gap, i * gap + (windows - 1) * step + 1, step) for i in range(taps)]
        x = functools.reduce(torch.maximum, [x[(slice(None),) * dim + (place,)] for place in places])
    return x


def adaptive_average_pool_1d(self: Tensor, output_size: Pair) -> Tensor:
    return F.adaptive_avg_pool2d(self.unsqueeze(2), (1, output_size[0])).squeeze(2)


def adaptive_average_pool(self: Tensor, output_size: Pair) -> Tensor:
    return F.adaptive_avg_pool2d(self, (output_size[0], output_size[1]))


def adaptive_max_pool(self: Tensor, output_size: Pair) -> tuple[Tensor]:
    """Windows of one size are those of a max pooling; others are reduced one by one, rows first."""
    rows, columns = output_size
    height, width = self.shape[2:]
    if not height % rows and not width % columns:
        return (F.max_pool2d(self, (height // rows, width // columns)),)
    _require_few(rows + columns)
    return (_largest(_largest(self, 2, rows), 3, columns),)


def _largest(x: Tensor, dim: int, windows: int) -> Tensor:
    length = x.shape[dim]
    bounds = [(i * length // windows, -(-(i + 1) * length // windows)) for i in range(windows)]
    return torch.cat([torch.amax(x.narrow(dim, start, end - start), dim, keepdim=True) for start, end in bounds], dim)


def unpool(self: Tensor, pooled: Tensor, kernel: Pair, output_size: Pair) -> Tensor:
    """Every value at the place of the maximum of its window in `pooled`, the first of several; zeros elsewhere.

    The places of a window have the ranks k·k to 1. Where a value is its window's maximum, it keeps its rank, elsewhere
    it has rank 0; the first maximum is where the rank is that of the window.
    """
    rows, columns = self.shape[2:]
    size = (rows * kernel[0], columns * kernel[1])
    x = pooled[:, :, : size[0], : size[1]]
    ranks = torch.arange(kernel[0] * kernel[1], 0, -1).float().reshape(*kernel).repeat(rows, columns)
    largest = F.interpolate(F.max_pool2d(x, list(kernel)), size)
    ranked = (1.0 - torch.sign(largest - x)) * ranks
    first = F.relu(ranked - F.interpolate(F.max_pool2d(ranked, list(kernel)), size) + 1.0)
    placed = F.interpolate(self, size) * first
    return F.pad(placed, (0, output_size[1] - size[1], 0, output_size[0] - size[0]))


def with_pooled(call: Call) -> dict[str, Any] | None:
    """The arguments of `unpool`, if the positions come from a pooling whose windows touch but do not overlap."""
    positions = call["indices"]
    pooling = positions.args[0] if positions.target is operator.getitem else None
    if pooling is None or str(pooling.target) != "aten.max_pool2d_with_indices.default":
        return None
    given = Call(pooling, call.parameters)
    kernel = pair(given["kernel_size"])
    steps, size = pair(given["stride"] or kernel), [int(length) for length in call["output_size"]]
    width, (rows, columns) = given.shape("self")[3], call.shape("self")[2:]
    fits = rows * kernel[0] <= size[0] and columns * kernel[1] <= width == size[1]  # positions count whole rows
    if steps != kernel or pair(given["padding"]) != (0, 0) or pair(given["dilation"]) != (1, 1) or not fits:
        return None
    return {"self": call["self"], "pooled": given["self"], "kernel": kernel, "output_size": size}


TABLE = {
    "max_unpool2d.default": unpool,
    "im2col.default": unfold,
    "col2im.default": fold,
    "convolution.default": convolution,
    "_convolution.default": convolution,
    "conv1d.default": convolution_1d,
    "conv_transpose1d.default": transposed_convolution_1d,
    "avg_pool2d.default": average_pool,
    "max_pool2d.default": dilated_max_pool,
    "avg_pool1d.default": average_pool_1d,
    "max_pool1d.default": max_pool_1d,
    "adaptive_avg_pool1d.default": adaptive_average_pool_1d,
    "_adaptive_avg_pool2d.default": adaptive_average_pool,
    "adaptive_max_pool2d.default": adaptive_max_pool,
}
PREPARED = {"max_unpool2d.default": with_pooled}
