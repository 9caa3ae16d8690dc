"""Layers of three dimensions, as layers of maps: depth becomes a part of the channels."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from slimseg.frontends.aten.decompositions.positions import multiplied

_MOST_TAPS = 16  # positions of a window along the depth


def convolution(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sequence[int] = (1, 1, 1),
    padding: Sequence[int] = (0, 0, 0),
    dilation: Sequence[int] = (1, 1, 1),
    groups: int = 1,
) -> Tensor:
    """A convolution of maps, of one for every position of one side, with the same weights.

    That side is one along which windows have length 1, else the first one, whose windows become channels.
    """
    settings = [[*each] * (3 // len(each)) for each in (stride, padding, dilation)]
    alone = [side for side in range(3) if (weight.shape[2 + side], settings[0][side], settings[1][side]) == (1, 1, 0)]
    side = alone[-1] if alone else 0
    maps = input.movedim(2 + side, 1)
    if not alone:
        maps = _windows(maps, weight.shape[2], *(each[0] for each in settings)).flatten(2, 3)
    steps, around, spread = ([length for place, length in enumerate(each) if place != side] for each in settings)
    count = maps.shape[1]
    taps = weight.squeeze(2 + side) if alone else weight.flatten(1, 2)
    result = F.conv2d(
        maps.flatten(1, 2),
        taps.repeat(count, 1, 1, 1),
        None if bias is None else bias.repeat(count),
        steps,
        around,
        spread,
        groups * count,
    )
    return result.reshape(len(result), count, -1, *result.shape[2:]).movedim(1, 2 + side)


def _windows(maps: Tensor, length: int, step: int, around: int, spread: int) -> Tensor:
    """(N, D, C, H, W) to (N, windows, C, length, H, W): the positions of windows along the depth, zeros around it."""
    if length > _MOST_TAPS:
        raise NotImplementedError("long windows")
    none = torch.zeros(1, around, *maps.shape[2:]) if around else None
    padded = maps if none is None else torch.cat((none, maps, none), 1)
    count = (padded.shape[1] - spread * (length - 1) - 1) // step + 1
    parts = [padded[:, tap * spread : tap * spread + (count - 1) * step + 1 : step] for tap in range(length)]
    return torch.stack(parts, 3)


def max_pool(
    self: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0, 0, 0),
    dilation: Sequence[int] = (1, 1, 1),
    ceil_mode: bool = False,
) -> Tensor:
    """Along the depth the maximum of shifted maps, then a pooling of maps."""
    kernel, steps, around, spread = (
        [*each] * (3 // len(each)) for each in (kernel_size, stride or kernel_size, padding, dilation)
    )
    if ceil_mode or around[0] or kernel[0] > _MOST_TAPS:
        raise NotImplementedError("padded depth")
    count = (self.shape[2] - spread[0] * (kernel[0] - 1) - 1) // steps[0] + 1
    places = [tap * spread[0] for tap in range(kernel[0])]
    deep = functools.reduce(
        torch.maximum, [self[:, :, place : place + (count - 1) * steps[0] + 1 : steps[0]] for place in places]
    )
    pooled = F.max_pool2d(deep.flatten(1, 2), kernel[1:], steps[1:], around[1:], spread[1:])
    return pooled.reshape(-1, self.shape[1], count, *pooled.shape[2:])


def average_pool(
    self: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0, 0, 0),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """Means of neighbouring maps, by a band of ones as in local response normalisation, then a pooling of maps."""
    kernel, steps, around = ([*each] * (3 // len(each)) for each in (kernel_size, stride or kernel_size, padding))
    if ceil_mode or divisor_override or any(around):
        raise NotImplementedError("padding, or a divisor of its own")
    length, width = self.shape[2], kernel[0]
    count = (length - width) // steps[0] + 1
    distance = torch.arange(length).reshape(1, -1) - torch.arange(count).reshape(-1, 1) * steps[0]
    means = multiplied(self, 2, ((distance >= 0) & (distance < width)).float() / width)
    if kernel[1:] == steps[1:] == [1, 1]:
        return means
    pooled = F.avg_pool2d(means.flatten(1, 2), kernel[1:], steps[1:])
    return pooled.reshape(-1, self.shape[1], count, *pooled.shape[2:])


TABLE = {"conv3d.default": convolution, "max_pool3d.default": max_pool, "avg_pool3d.default": average_pool}
