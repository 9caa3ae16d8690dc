"""Convolutions of three dimensions one of which has windows of length 1, as lambda layers have them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F


def convolution(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sequence[int] = (1, 1, 1),
    padding: Sequence[int] = (0, 0, 0),
    dilation: Sequence[int] = (1, 1, 1),
    groups: int = 1,
) -> Tensor:
    """A convolution of maps, of one for every position of that dimension, with the same weights."""
    settings = [[*each] * (3 // len(each)) for each in (stride, padding, dilation)]
    alone = [side for side in range(3) if (weight.shape[2 + side], settings[0][side], settings[1][side]) == (1, 1, 0)]
    if not alone:
        raise NotImplementedError("windows of three dimensions")
    side = alone[-1]
    steps, around, spread = ([length for place, length in enumerate(each) if place != side] for each in settings)
    maps = input.movedim(2 + side, 1)
    count = maps.shape[1]
    result = F.conv2d(
        maps.flatten(1, 2),
        weight.squeeze(2 + side).repeat(count, 1, 1, 1),
        None if bias is None else bias.repeat(count),
        steps,
        around,
        spread,
        groups * count,
    )
    return result.reshape(len(result), count, -1, *result.shape[2:]).movedim(1, 2 + side)


TABLE = {"conv3d.default": convolution}
