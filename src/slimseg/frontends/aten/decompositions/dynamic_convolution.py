"""Convolutions whose weights are computed from the image, as conditional convolutions and dynamic filters have them."""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from slimseg.frontends.aten.call import Call, pair

_MOST_TAPS = 128  # of a window of one channel, each of which becomes some layers


def convolution(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    is_computed: bool,
) -> Tensor:
    """Products of the windows with the weights; only the bias apart, if only that is computed."""
    settings = (pair(stride), pair(padding), pair(dilation))
    if not is_computed:
        result = F.conv2d(input, weight, None, *settings, groups)
    elif weight.shape[1] == 1 and weight.shape[0] == groups:
        result = _of_each_channel(input, weight, *settings)
    else:
        result = _of_windows(input, weight, *settings, groups)
    return result if bias is None else result + bias.reshape(1, -1, 1, 1)


def _size(x: Tensor, weight: Tensor, stride: Any, padding: Any, dilation: Any) -> list[int]:
    sides = zip(x.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True)
    return [
        (length + 2 * around - spread * (kernel - 1) - 1) // step + 1 for length, kernel, step, around, spread in sides
    ]


def _of_windows(x: Tensor, weight: Tensor, stride: Any, padding: Any, dilation: Any, groups: int) -> Tensor:
    """The matrix of weights times the matrix whose columns are windows."""
    outputs, depth, *kernel = weight.shape
    rows, columns = _size(x, weight, stride, padding, dilation)
    plain = kernel == [1, 1] and stride == (1, 1) and padding == (0, 0)
    windows = x if plain else F.unfold(x, (kernel[0], kernel[1]), dilation, padding, stride)
    values = depth * kernel[0] * kernel[1]
    product = torch.matmul(
        weight.reshape(1, groups, outputs // groups, values), windows.reshape(1, groups, values, rows * columns)
    )
    return product.reshape(1, outputs, rows, columns)


def _of_each_channel(x: Tensor, weight: Tensor, stride: Any, padding: Any, dilation: Any) -> Tensor:
    """Depthwise: the sum of shifted maps, each times one weight of each channel."""
    channels, _, *kernel = weight.shape
    if kernel[0] * kernel[1] > _MOST_TAPS:
        raise NotImplementedError("large windows")
    rows, columns = _size(x, weight, stride, padding, dilation)
    padded = F.pad(x, (padding[1], padding[1], padding[0], padding[0])) if any(padding) else x
    factors = weight.reshape(1, channels, -1)

    def tap(number: int) -> Tensor:
        top, left = (number // kernel[1]) * dilation[0], (number % kernel[1]) * dilation[1]
        below, right = top + (rows - 1) * stride[0] + 1, left + (columns - 1) * stride[1] + 1
        place = padded[:, :, top : below : stride[0], left : right : stride[1]]
        return place * factors[:, :, number : number + 1].unsqueeze(3)

    return functools.reduce(operator.add, map(tap, range(kernel[0] * kernel[1])))


def with_kind(call: Call) -> dict[str, Any] | None:
    """The arguments of `convolution`, among them whether the weights are computed; None if one side is padded more."""
    given = dict(call.arguments)
    if call["padding"] in ("same", "valid"):
        sides = zip(call.shape("weight")[2:], pair(call["dilation"]), strict=True)
        around = [(side - 1) * gap if call["padding"] == "same" else 0 for side, gap in sides]
        if any(pixels % 2 for pixels in around):
            return None
        given["padding"] = [pixels // 2 for pixels in around]
    return {**given, "is_computed": call.is_value("weight")}


TABLE = {"conv2d.default": convolution, "conv2d.padding": convolution}
PREPARED = {"conv2d.default": with_kind, "conv2d.padding": with_kind}
