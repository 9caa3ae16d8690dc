"""Pooling: "same" puts an odd pixel of padding after, and padded pixels do not count.

This is how TensorFlow, JAX and TFLite do it. Keras on torch repeats the edge instead if the padding is uneven, which
matters to means over three or more pixels.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torch import nn

from slimseg.frontends.keras import arithmetic, layout
from slimseg.frontends.keras.builder import Value
from slimseg.frontends.keras.convolutions import same_padding
from slimseg.frontends.keras.said import Said, pair
from slimseg.graph import propagation

_LOWEST = float(np.finfo(np.float32).min)


def _windows(said: Said) -> tuple[tuple[int, int], tuple[int, int]]:
    size = pair(said.config.get("pool_size", 2))
    return size, pair(said.config.get("strides") or size)


def max_pooling(said: Said) -> Value:
    size, stride = _windows(said)
    if said.config.get("padding", "valid").lower() == "valid":
        return said.emit(nn.MaxPool2d(size, stride), said.x)
    amounts = same_padding(said.x, size, stride)
    module = nn.MaxPool2d(size, stride, (amounts[0][0], amounts[1][0]), ceil_mode=True)
    if _is_same(said, module, stride):
        return said.emit(module, said.x)
    padded = layout.pad(said.builder, said.x, amounts, _LOWEST, suffix="pad")
    return said.emit(nn.MaxPool2d(size, stride), padded)


def average_pooling(said: Said) -> Value:
    size, stride = _windows(said)
    if said.config.get("padding", "valid").lower() == "valid":
        return said.emit(nn.AvgPool2d(size, stride), said.x)
    amounts = same_padding(said.x, size, stride)
    before = (amounts[0][0], amounts[1][0])
    module = nn.AvgPool2d(size, stride, before, ceil_mode=True, count_include_pad=False)
    if _is_same(said, module, stride):
        return said.emit(module, said.x)
    padded = layout.pad(said.builder, said.x, amounts, suffix="pad")
    mean = said.emit(nn.AvgPool2d(size, stride), padded, suffix="mean")
    rows, columns = (
        _share(length, pad, window, step)
        for length, pad, window, step in zip(said.x.shape[2:], amounts, size, stride, strict=True)
    )
    return said.builder.affine(mean, scale=(rows[:, None] * columns)[..., None])


def _share(length: int, pad: tuple[int, int], window: int, step: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """For each position, the factor for a window's mean so that padded pixels do not count."""
    starts = np.arange(0, length + sum(pad) - window + 1, step) - pad[0]
    inside = np.minimum(starts + window, length) - np.maximum(starts, 0)
    result: np.ndarray[tuple[int], np.dtype[np.float64]] = window / np.maximum(inside, 1)
    return result


def _is_same(said: Said, module: nn.Module, stride: tuple[int, int]) -> bool:
    """Whether torch's ceil_mode gives the same number of windows as "same"."""
    given = propagation.shape_of(module, [said.x.shape])[2:]
    return given == tuple(-(-length // step) for length, step in zip(said.x.shape[2:], stride, strict=True))


def global_pooling(kind: str) -> Callable[[Said], Value]:
    def emit(said: Said) -> Value:
        return arithmetic.reduce(said.builder, said.x, kind, [1, 2], bool(said.config.get("keepdims")))

    return emit
