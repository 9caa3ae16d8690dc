"""Values at computed positions, where the vocabulary's bilinear layer reads them at other positions than are given."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from slimseg.frontends.aten.decompositions.trigonometry import round_half_to_even

_NEAREST, _BICUBIC = 1, 2
_ZEROS, _BORDER, _REFLECTION = 0, 1, 2
_BICUBIC_SHAPE = -0.75  # torch's constant of the cubic
_MOST_TAPS = 64
Place = Callable[[Tensor], Tensor]


def grid_sample(input: Tensor, grid: Tensor, interpolation_mode: int, padding_mode: int, align_corners: bool) -> Tensor:
    """The nearest pixel, reflected maps and bicubic values, as bilinear values at positions that are computed."""
    if input.ndim != 4 or (interpolation_mode == 0 and padding_mode != _REFLECTION):
        raise NotImplementedError("the handler's own")
    sides = (input.shape[3], input.shape[2])
    corners = bool(align_corners)
    pixels = [_in_pixels(grid[..., place : place + 1], side, corners) for place, side in enumerate(sides)]
    within = [_within(side, padding_mode, corners) for side in sides]
    if interpolation_mode == _BICUBIC:
        return _bicubic(input, pixels, within)
    pixels = [keep(each) for keep, each in zip(within, pixels, strict=True)]
    if interpolation_mode == _NEAREST:
        pixels = [round_half_to_even(each) for each in pixels]
    return _read(input, pixels)


def _in_pixels(place: Tensor, side: int, corners: bool) -> Tensor:
    """Places from -1 to 1 as numbers of pixels, of which the first has its centre at 0."""
    return (place + 1.0) * ((side - 1) / 2) if corners else (place + 1.0) * (side / 2) - 0.5


def _read(x: Tensor, pixels: Sequence[Tensor]) -> Tensor:
    """Bilinear values; zeros outside the map."""
    sides = (x.shape[3], x.shape[2])
    places = [each * (2 / side) + (1 / side - 1.0) for each, side in zip(pixels, sides, strict=True)]
    return F.grid_sample(x, torch.cat(places, 3), align_corners=False)


def _within(side: int, padding_mode: int, corners: bool) -> Place:
    """What becomes of a place outside the map."""
    if padding_mode == _ZEROS:
        return lambda place: place
    if padding_mode == _BORDER:
        return lambda place: F.hardtanh(place, 0.0, float(max(side - 1, 1)))
    first, length = (0.0, side - 1) if corners else (-0.5, side)
    return lambda place: _reflected(place, first, max(length, 1), side)


def _reflected(place: Tensor, first: float, length: int, side: int) -> Tensor:
    distance = torch.abs(place - first)
    turns = torch.floor(distance / length)
    rest = distance - turns * length
    is_odd = turns - torch.floor(turns * 0.5) * 2.0
    inside = rest * (1.0 - is_odd) + (length - rest) * is_odd + first
    return F.hardtanh(inside, 0.0, float(max(side - 1, 1)))


def _bicubic(x: Tensor, pixels: Sequence[Tensor], within: Sequence[Place]) -> Tensor:
    """Four rows of four pixels, each weighted by its distance; all are read at once, one map of them below another."""
    rows = pixels[0].shape[1]
    places, weights = [], []
    for each, keep in zip(pixels, within, strict=True):
        first = torch.floor(each)
        places.append([keep(first + (tap - 1)) for tap in range(4)])
        weights.append(_cubic(each - first))
    wide, tall = (
        [torch.cat([kind[0][column] for _ in range(4) for column in range(4)], 1) for kind in (places, weights)],
        [torch.cat([kind[1][row] for row in range(4) for _ in range(4)], 1) for kind in (places, weights)],
    )
    values = _read(x, (wide[0], tall[0])) * (wide[1] * tall[1]).permute(0, 3, 1, 2)
    return values.reshape(-1, x.shape[1], 16, rows, values.shape[3]).sum(2)


def _cubic(t: Tensor) -> list[Tensor]:
    """Weights of the four pixels around a place that lies `t` behind the second one (Keys 1981)."""
    a = _BICUBIC_SHAPE

    def near(d: Tensor) -> Tensor:
        return ((d * (a + 2) - (a + 3)) * d) * d + 1.0

    def far(d: Tensor) -> Tensor:
        return ((d * a - 5 * a) * d + 8 * a) * d - 4 * a

    return [far(t + 1.0), near(t), near(1.0 - t), far(2.0 - t)]


def deformable_convolution(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    bias: Tensor | None,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    groups: int,
    offset_groups: int,
    use_mask: bool = True,
) -> Tensor:
    """A 1x1 convolution of the values at all taps of a window, each tap moved by an offset (y, x) of its own.

    As in torchvision: `offset` is (N, 2·groups·taps, rows, columns), `mask` is (N, groups·taps, rows, columns).
    """
    kh, kw = weight.shape[2:]
    rows, columns = offset.shape[2:]
    taps = kh * kw
    if taps > _MOST_TAPS:
        raise NotImplementedError("large windows")
    moved = offset.reshape(-1, offset_groups, taps, 2, rows, columns)
    down, right = torch.meshgrid(torch.arange(rows) * stride_h, torch.arange(columns) * stride_w, indexing="ij")
    down, right = down - pad_h, right - pad_w
    tap_rows, tap_columns = torch.meshgrid(torch.arange(kh) * dilation_h, torch.arange(kw) * dilation_w, indexing="ij")
    y = (tap_rows.reshape(1, taps, 1, 1) + down).float()
    x = (tap_columns.reshape(1, taps, 1, 1) + right).float()
    parts = []
    for group, maps in enumerate(input.chunk(offset_groups, 1)):
        pixels = [
            (moved[:, group, :, place] + own).reshape(-1, taps * rows, columns, 1) for place, own in ((1, x), (0, y))
        ]
        values = _read(maps, pixels).reshape(-1, maps.shape[1], taps, rows, columns)
        if use_mask and mask is not None:
            values = values * mask.reshape(-1, offset_groups, taps, rows, columns)[:, group].unsqueeze(1)
        parts.append(values.flatten(1, 2))
    together = torch.cat(parts, 1) if len(parts) > 1 else parts[0]
    return F.conv2d(together, weight.reshape(weight.shape[0], -1, 1, 1), bias, groups=groups)


TABLE = {
    "grid_sampler.default": grid_sample,
    "grid_sampler_2d.default": grid_sample,
    "torchvision.deform_conv2d.default": deformable_convolution,
}
