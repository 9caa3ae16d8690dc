"""Resize and Upsample, compared with the vocabulary's modes by the input positions that they read.

ONNX has six formulas for the input position of an output pixel, four ways to round it, and scales that need not agree
with the sizes. Many of these are equivalent, so the positions are computed and compared with those of the vocabulary's
few modes, for each side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from slimseg.frontends.onnx.builder import Call, Value
from slimseg.frontends.onnx.tensors import Array
from slimseg.graph import ops

LARGEST_SIDE = 1 << 14
_NEAREST: tuple[tuple[ops.ResizeMode, ops.Coordinates], ...] = (
    ("nearest", "asymmetric"),
    ("nearest-exact", "half_pixel"),
    ("nearest", "align_corners"),
)
_LINEAR: tuple[tuple[ops.ResizeMode, ops.Coordinates], ...] = (
    ("bilinear", "half_pixel"),
    ("bilinear", "align_corners"),
    ("bilinear", "asymmetric"),
)


@dataclass(frozen=True)
class Side:
    """One dimension: resized from `length` to `target` pixels, with ONNX's scale."""

    length: int
    target: int
    scale: float


def resize(call: Call) -> Value:
    value = call.value()
    if value.rank != 4:
        raise call.unknown("it does not resize a map")
    sides = _sides(call, value)
    stored = [sides[value.order.index(dim)] for dim in range(4)]
    if any(side.target != side.length for side in stored[:2]):
        raise call.unknown("it resizes channels")
    pair = stored[2:]
    if all(side.target == side.length and math.isclose(side.scale, 1, abs_tol=1e-6) for side in pair):
        return value
    mode = call.attribute("mode", "nearest")
    if mode not in ("nearest", "linear") or call.attribute("antialias", 0):
        raise call.unknown(f"its mode is {mode}{' with antialias' if call.attribute('antialias', 0) else ''}")
    size = (pair[0].target, pair[1].target)
    # The file's own coordinates first, since several read the same positions where a map of one pixel is resized.
    modes = sorted(_NEAREST if mode == "nearest" else _LINEAR, key=lambda each: each[1] != _coordinates(call))
    for cut in _cuts(pair):
        for candidate, coordinates in modes:
            if all(_same(call, mode, side, kept, candidate, coordinates) for side, kept in zip(pair, cut, strict=True)):
                return _emit(call, value, cut, ops.Resize(size, candidate, coordinates))
    raise call.unknown(
        f"it resizes {pair[0].length}x{pair[1].length} to {size[0]}x{size[1]} at coordinates that mobile files lack "
        f"({_coordinates(call)}); export it with half_pixel, align_corners or asymmetric coordinates and whole sizes"
    )


def _emit(call: Call, value: Value, cut: Sequence[int], layer: ops.Resize) -> Value:
    height, width = value.stored[2:]
    if tuple(cut) != (height, width):
        crop = ops.Pad((0, cut[1] - width, 0, cut[0] - height))
        value = call.on(value, crop, suffix="crop")
    return call.on(value, layer)


def _cuts(pair: Sequence[Side]) -> list[tuple[int, int]]:
    """How much of the input is resized (height, width): all of it, or the part that a non-matching scale reaches."""
    whole = (pair[0].length, pair[1].length)
    reached = [round(side.target / side.scale) for side in pair]
    fits = all(0 < part <= side.length for part, side in zip(reached, pair, strict=True))
    return [whole, (reached[0], reached[1])] if fits and tuple(reached) != whole else [whole]


def _sides(call: Call, value: Value) -> list[Side]:
    """The four dimensions, in ONNX's order."""
    scales, sizes = scales_and_sizes(call)
    axes = [int(axis) % 4 for axis in call.attribute("axes", range(4))]
    sides = [Side(length, length, 1.0) for length in value.shape]
    given = sizes if sizes is not None else scales
    if given is None or len(given) != len(axes) or call.attribute("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise call.unknown("it does not have one size or scale for each dimension")
    for axis, number in zip(axes, given.tolist(), strict=True):
        length = value.shape[axis]
        # ONNX computes in float32, where 64 · 1.1 may be just below or above a whole number.
        target = int(number) if sizes is not None else int(np.floor(np.float32(length) * np.float32(number)))
        if not 0 < target <= LARGEST_SIDE:
            raise call.unknown(f"it resizes {length} pixels to {target}")
        sides[axis] = Side(length, target, target / length if sizes is not None else float(number))
    return sides


def scales_and_sizes(call: Call) -> tuple[Array | None, Array | None]:
    if "scales" in call.node.attributes:  # Upsample before opset 9
        return np.asarray(call.attribute("scales"), np.float32), None
    older = call.node.op == "Upsample" or call.opset < 11  # (X, scales); later versions take (X, roi, scales, sizes)
    scales = call.constant(1 if older else 2)
    sizes = None if older else call.constant(3)
    none = scales is None or not scales.size
    return (None if none else scales), (sizes if sizes is not None and sizes.size else None)


def _coordinates(call: Call) -> str:
    default = "asymmetric" if call.node.op == "Upsample" or call.opset < 11 else "half_pixel"
    return str(call.attribute("coordinate_transformation_mode", default))


def _places(call: Call, side: Side) -> Array | None:
    """The position that ONNX reads for every output pixel of a side; None for an unknown mode."""
    pixel, mode = np.arange(side.target, dtype=np.float64), _coordinates(call)
    if mode == "half_pixel_symmetric":
        adjust = side.target / (side.scale * side.length)
        return side.length / 2 * (1 - adjust) + (pixel + 0.5) / side.scale - 0.5
    if mode == "pytorch_half_pixel" and side.target == 1:
        return np.zeros(1)
    if mode in ("half_pixel", "pytorch_half_pixel"):
        return (pixel + 0.5) / side.scale - 0.5
    if mode == "align_corners":
        return pixel * ((side.length - 1) / max(side.target - 1, 1))
    if mode == "asymmetric":
        return pixel / side.scale
    return (pixel + 0.5) / side.scale if mode == "tf_half_pixel_for_nn" else None


def _own_places(side: Side, kept: int, coordinates: ops.Coordinates) -> Array:
    """The position that a mode of the vocabulary reads for every pixel when `kept` pixels are resized to the target."""
    pixel = np.arange(side.target, dtype=np.float64)
    if coordinates == "half_pixel":
        return (pixel + 0.5) * (kept / side.target) - 0.5
    if coordinates == "align_corners":
        return pixel * ((kept - 1) / max(side.target - 1, 1))
    return pixel * (kept / side.target)


def _same(
    call: Call, mode: str, side: Side, kept: int, candidate: ops.ResizeMode, coordinates: ops.Coordinates
) -> bool:
    theirs, ours = _places(call, side), _own_places(side, kept, coordinates)
    if theirs is None:
        return False
    if mode == "linear":
        clipped = np.clip(theirs, 0, side.length - 1), np.clip(ours, 0, kept - 1)
        return bool(np.allclose(*clipped, rtol=0, atol=1e-4))
    pixels = rounded(theirs, rounding(call)).clip(0, side.length - 1)
    own = rounded(ours, "floor" if candidate == "nearest" and coordinates == "asymmetric" else "round_prefer_ceil")
    return bool((pixels == own.clip(0, kept - 1)).all())


def rounding(call: Call) -> str:
    default = "floor" if call.node.op == "Upsample" or call.opset < 11 else "round_prefer_floor"
    return str(call.attribute("nearest_mode", default))


def rounded(places: Array, how: str) -> Array:
    slack = 1e-6  # so that n · (1/n) counts as a whole number in ONNX's positions and in ours
    functions = {
        "floor": lambda: np.floor(places + slack),
        "ceil": lambda: np.ceil(places - slack),
        "round_prefer_floor": lambda: np.ceil(places - 0.5 - slack),
        "round_prefer_ceil": lambda: np.floor(places + 0.5 + slack),
    }
    return functions[how]()
