"""An input or output of a runtime's file, and conversion of values to and from its type."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from slimseg.results import Port

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class TensorInfo:
    """One input or output of a model."""

    name: str
    shape: tuple[int, ...]  # NHWC; empty if the file does not state it
    dtype: str  # numpy's name of its type
    scale: float = 0.0  # real = (integer - zero_point) * scale; 0.0: not quantised
    zero_point: int = 0


def port(info: TensorInfo) -> Port:
    """An input or output as a result describes it."""
    return Port(info.name, info.shape, info.dtype, info.scale, info.zero_point)


def quantise(value: Array, info: TensorInfo) -> Array:
    """Convert float32 values to the tensor's type; integers are rounded and clipped to its limits."""
    dtype = np.dtype(info.dtype)
    if dtype.kind not in "iu":
        return np.ascontiguousarray(value, dtype)
    limits = np.iinfo(dtype)
    stored = np.rint(value / info.scale) + info.zero_point if info.scale else np.rint(value)
    result: Array = np.clip(stored, limits.min, limits.max).astype(dtype)
    return result


def dequantise(value: Array, info: TensorInfo) -> Array:
    """Convert values of the tensor's type to float32; integers without a scale stay, booleans (a mask) become uint8."""
    if value.dtype.kind == "b":
        return value.astype(np.uint8)
    if value.dtype.kind not in "iu":
        return value.astype(np.float32, copy=False)
    if not info.scale:
        return value
    return (value.astype(np.float32) - info.zero_point) * np.float32(info.scale)
