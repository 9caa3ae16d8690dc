"""An input or output of a runtime's file, and numbers in its own type."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class TensorInfo:
    """One input or output of a model."""

    name: str
    shape: tuple[int, ...]  # NHWC; empty where the file does not say it
    dtype: str  # numpy's name
    scale: float = 0.0  # real = (integer - zero_point) * scale; 0.0: not quantised
    zero_point: int = 0


def quantise(value: Array, info: TensorInfo) -> Array:
    """Float32 to the tensor's own type."""
    dtype = np.dtype(info.dtype)
    if dtype.kind not in "iu":
        return np.ascontiguousarray(value, dtype)
    limits = np.iinfo(dtype)
    stored = np.rint(value / info.scale) + info.zero_point if info.scale else np.rint(value)
    result: Array = np.clip(stored, limits.min, limits.max).astype(dtype)
    return result


def dequantise(value: Array, info: TensorInfo) -> Array:
    """The tensor's own type to float32; integers without a scale and booleans (a mask) stay as they are."""
    if value.dtype.kind == "b":
        return value.astype(np.uint8)
    if value.dtype.kind not in "iu":
        return value.astype(np.float32, copy=False)
    if not info.scale:
        return value
    return (value.astype(np.float32) - info.zero_point) * np.float32(info.scale)
