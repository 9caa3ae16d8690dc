"""Every other Resize: along each side a product with a matrix, row for row what ONNX's definition gives."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from slimseg.frontends.aten.decompositions.positions import multiplied
from slimseg.frontends.onnx.builder import Call
from slimseg.frontends.onnx.resize import rounded, rounding, scales_and_sizes
from slimseg.frontends.onnx.tensors import Array

_LARGEST_MATRIX = 1 << 22  # values


@dataclass(frozen=True)
class Side:
    """One dimension: resized from `length` to `target` values, with ONNX's scale; the part of it that is read."""

    length: int
    target: int
    scale: float
    start: float = 0.0
    end: float = 1.0


def resize(call: Call, x: Tensor, *given: object) -> Tensor:
    """Cubic, antialiased, of any rank, at any of ONNX's coordinates."""
    for dim, side in enumerate(_sides(call, tuple(x.shape))):
        if side.length * max(side.length, side.target) > _LARGEST_MATRIX:
            raise NotImplementedError("a large matrix")
        call.builder.work.compute(side.length * side.target)
        matrix = _matrix(call, side)
        if matrix.shape[0] != matrix.shape[1] or (matrix != np.eye(side.length)).any():
            x = multiplied(x, dim, torch.tensor(matrix, dtype=torch.float32))
    return x


def _sides(call: Call, shape: tuple[int, ...]) -> list[Side]:
    scales, sizes = scales_and_sizes(call)
    axes = [int(axis) % len(shape) for axis in call.attribute("axes", range(len(shape)))]
    given = sizes if sizes is not None else scales
    if given is None or len(given) != len(axes):
        raise NotImplementedError("it does not have one size or scale for each dimension")
    numbers = dict(zip(axes, given.tolist(), strict=True))
    if sizes is not None and (policy := call.attribute("keep_aspect_ratio_policy", "stretch")) != "stretch":
        ratios = [number / shape[axis] for axis, number in numbers.items()]
        scale = min(ratios) if policy == "not_larger" else max(ratios)
        numbers = {axis: math.floor(scale * shape[axis] + 0.5) for axis in axes}
        return [_side(length, numbers.get(dim), None if dim in axes else 1.0) for dim, length in enumerate(shape)]
    parts = _parts(call, axes)
    factors = numbers if sizes is None else {}
    return [
        _side(length, numbers.get(dim), factors.get(dim), *parts.get(dim, (0.0, 1.0)))
        for dim, length in enumerate(shape)
    ]


def _side(length: int, number: float | None, scale: float | None, start: float = 0.0, end: float = 1.0) -> Side:
    if number is None:
        return Side(length, length, 1.0)
    if scale is None:
        return Side(length, int(number), number / length, start, end)
    return Side(length, int(np.floor(np.float32(length) * np.float32(scale))), scale, start, end)


def _parts(call: Call, axes: list[int]) -> dict[int, tuple[float, float]]:
    """The part of each dimension that tf_crop_and_resize reads."""
    roi = call.constant(1) if call.opset >= 11 else None
    if call.attribute("coordinate_transformation_mode") != "tf_crop_and_resize" or roi is None:
        return {}
    if call.attribute("extrapolation_value", 0.0):
        raise NotImplementedError("a number outside of the map")
    starts, ends = roi.reshape(2, -1).tolist()
    return dict(zip(axes, zip(starts, ends, strict=True), strict=True))


def _places(call: Call, side: Side) -> Array:
    """The position that each value reads."""
    place = np.arange(side.target, dtype=np.float64)
    mode = call.attribute("coordinate_transformation_mode", "half_pixel" if call.opset >= 11 else "asymmetric")
    middle = (place + 0.5) / side.scale - 0.5
    if mode == "half_pixel_symmetric":
        exact = side.scale * side.length
        return side.length / 2 * (1 - side.target / exact) + middle
    if mode == "tf_crop_and_resize":
        step = (side.end - side.start) * (side.length - 1) / max(side.target - 1, 1)
        if side.target == 1:
            return np.array([0.5 * (side.start + side.end) * (side.length - 1)])
        return side.start * (side.length - 1) + place * step
    known: dict[str, Callable[[], Array]] = {
        "half_pixel": lambda: middle,
        "pytorch_half_pixel": lambda: middle if side.target > 1 else np.zeros(1),
        "align_corners": lambda: place * ((side.length - 1) / max(side.target - 1, 1)),
        "asymmetric": lambda: place / side.scale,
        "tf_half_pixel_for_nn": lambda: (place + 0.5) / side.scale,
    }
    return known[mode]()


def _matrix(call: Call, side: Side) -> Array:
    """(target, length): the share of each value in each result."""
    if side.target == side.length and math.isclose(side.scale, 1.0, abs_tol=1e-6) and (side.start, side.end) == (0, 1):
        return np.eye(side.length)
    places, mode = _places(call, side), str(call.attribute("mode", "nearest"))
    result = np.zeros((side.target, side.length))
    if mode == "nearest":
        nearest = rounded(places, rounding(call)).astype(np.int64).clip(0, side.length - 1)
        result[np.arange(side.target), nearest] = 1.0
    else:
        _interpolated(call, side, places, mode, result)
    if call.attribute("coordinate_transformation_mode") == "tf_crop_and_resize":
        result[(places < 0) | (places > side.length - 1)] = 0.0
    return result


def _interpolated(call: Call, side: Side, places: Array, mode: str, result: Array) -> None:
    """Fill in the weights of a linear or cubic kernel, which an antialiased resize to fewer values widens."""
    smooth = bool(call.attribute("antialias", 0))
    width = min(side.scale, 1.0) if smooth else 1.0
    reach = math.ceil((1 if mode == "linear" else 2) / width)
    a = float(call.attribute("cubic_coeff_a", -0.75))
    exclude = bool(call.attribute("exclude_outside", 0))
    for row, place in enumerate(places.tolist()):
        taps = np.arange(math.floor(place) - reach, math.floor(place) + reach + 2)
        distance = np.abs(taps - place) * width
        weights = np.clip(1 - distance, 0, 1) if mode == "linear" else _cubic(distance, a)
        if exclude:
            weights = np.where((taps >= 0) & (taps < side.length), weights, 0.0)
        if exclude or smooth:
            weights = weights / weights.sum()
        np.add.at(result[row], taps.clip(0, side.length - 1), weights)


def _cubic(distance: Array, a: float) -> Array:
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))
