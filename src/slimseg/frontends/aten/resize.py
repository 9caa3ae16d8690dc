"""Resizes. torch reads at different positions for a scale than for a size.

With a scale s, pixel y of the result is read at (y + ½)/s − ½, with a size at (y + ½)·h/H − ½; the two differ where
h·s is not a whole number H. The vocabulary has sizes only. So the map is resized from a length whose product with the
scale is a whole number: a shorter one, whose other pixels are cut off first, or a longer one, whose result is cropped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from slimseg.frontends.aten.call import Call, Chain, Layer, pair
from slimseg.graph import ops

_CLOSE = 5e-4  # pixels: positions that are nearer count as the same
_UNREAD = 1e9  # marks pixels that must not be read
_IN_ONE_DIMENSION = {"bilinear": "linear", "nearest": "nearest", "nearest-exact": "nearest-exact"}


@dataclass(frozen=True)
class Side:
    """How one side is resized: `length` input pixels (a padded side repeats its last pixel once) to `target` pixels."""

    length: int
    target: int


def resize(mode: ops.ResizeMode) -> Callable[[Call], Layer | Chain | None]:
    def handler(call: Call) -> Layer | Chain | None:
        source, size = call["input" if "input" in call.arguments else "self"], pair(call.output_shape[2:])
        lengths = pair(tuple(source.meta["val"].shape)[2:])
        if mode == "bilinear" and call["align_corners"]:
            return Layer(lambda: ops.Resize(size, mode, "align_corners"), (source,), "resize")
        sides = []
        for length, target, scale in zip(lengths, size, _scales(call), strict=True):
            side = Side(length, target) if scale is None else _side(mode, length, target, scale)
            if side is None:
                return None  # the call stays an opaque node
            sides.append(side)
        return _layers(source, mode, lengths, size, sides)

    return handler


def _scales(call: Call) -> tuple[float | None, float | None]:
    """Scales of height and width; None where the call has none, or none above zero, which torch ignores."""
    if "scale_factors" in call.arguments:
        given = call["scale_factors"] or (None, None)
    else:
        given = (call["scales_h"], call["scales_w"])
    height, width = (float(scale) if scale is not None and scale > 0 else None for scale in given)
    return height, width


def _side(mode: ops.ResizeMode, length: int, target: int, scale: float) -> Side | None:
    """A side that reads at the same positions as torch does with that scale; None if there is none."""
    wanted = _reads(mode, torch.arange(length, dtype=torch.float32), target, scale)
    return next((side for side in _candidates(length, target, scale) if _is_read_as(mode, length, side, wanted)), None)


def _candidates(length: int, target: int, scale: float) -> Iterator[Side]:
    yield Side(length, target)
    shorter = round(target / scale)
    if 0 < shorter < length:
        yield Side(shorter, target)
    longer = (Side(pixels, round(pixels * scale)) for pixels in range(length + 1, 2 * length + 32))
    fitting = [side for side in longer if side.target >= target and _misfit(side, scale) * target < _CLOSE]
    yield from sorted(fitting, key=lambda side: _misfit(side, scale))


def _misfit(side: Side, scale: float) -> float:
    """Error in the distance between the positions that two neighbouring pixels of the result are read at."""
    return abs(side.length / side.target - 1 / scale) if side.target else math.inf


def _is_read_as(mode: ops.ResizeMode, length: int, side: Side, wanted: Tensor) -> bool:
    places = torch.arange(side.length, dtype=torch.float32)
    places[length : length + 1] = length - 1
    places[length + 1 :] = _UNREAD
    found = _reads(mode, places, side.target, None)[: len(wanted)]
    return bool(torch.allclose(found, wanted, rtol=0, atol=_CLOSE))


def _reads(mode: ops.ResizeMode, values: Tensor, target: int, scale: float | None) -> Tensor:
    """`values` at the positions where torch reads for each of `target` pixels."""
    name = _IN_ONE_DIMENSION[mode]
    if scale is None:
        return F.interpolate(values[None, None], size=target, mode=name)[0, 0]
    return F.interpolate(values[None, None], scale_factor=scale, mode=name)[0, 0][:target]


def _layers(
    source: fx.Node, mode: ops.ResizeMode, lengths: Sequence[int], size: tuple[int, int], sides: Sequence[Side]
) -> Layer | Chain:
    layers: list[Layer] = []

    def put(suffix: str, module: Callable[[], nn.Module], *others: int) -> int:
        before = len(layers) - 1 if layers else source
        layers.append(Layer(module, (before, *others), suffix))
        return len(layers) - 1

    for dim, length, side in zip((2, 3), lengths, sides, strict=True):
        if side.length > length:  # the last pixel again, as torch reads it for positions beyond it
            whole = len(layers) - 1 if layers else source
            last = put("last", partial(ops.Slice, dim, length - 1, length))
            layers.append(Layer(partial(ops.Concat, dim), (whole, last), "grown"))
    more = [side.length - length - (side.length > length) for length, side in zip(lengths, sides, strict=True)]
    if any(more):
        put("pad", partial(ops.Pad, (0, more[1], 0, more[0])))
    result = (sides[0].target, sides[1].target)
    put("resize", partial(ops.Resize, result, mode))
    if result != size:
        put("crop", partial(ops.Pad, (0, size[1] - result[1], 0, size[0] - result[0])))
    return Chain(tuple(layers)) if len(layers) > 1 else layers[0]
