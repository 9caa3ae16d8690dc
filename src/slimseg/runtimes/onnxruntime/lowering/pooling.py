"""Pooling, with explicit padding: runtimes differ in how many windows ONNX's ceil_mode gives."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import nn

from slimseg.errors import Unsupported
from slimseg.graph.shapes import pair
from slimseg.graph.vocabulary.pooling import reached_padding, window_means
from slimseg.runtimes.onnxruntime.lowering.step import Lowerings, Step

Sides = tuple[int, int, int, int]  # (top, left, bottom, right)


def max_pool(step: Step, layer: nn.MaxPool2d) -> str:
    pads = _padding(step, layer)
    if pair(layer.dilation) != (1, 1) and layer.ceil_mode:
        raise Unsupported(f"{step.name}: a dilated max pool with ceil_mode is not written for ONNX")
    return step.add("MaxPool", **_windows(layer), pads=pads, dilations=pair(layer.dilation))


def average_pool(step: Step, layer: nn.AvgPool2d) -> str:
    """Average pooling; torch counts the layer's padding as the layer states, but never what ceil_mode adds after it."""
    if layer.divisor_override is not None:
        raise Unsupported(f"{step.name}: ONNX's average pooling cannot have a divisor of its own")
    source, own, pads = step.inputs[0], pair(layer.padding), _padding(step, layer)
    beyond = pads[2] > own[0] or pads[3] > own[1]
    counted = layer.count_include_pad
    if counted and beyond and any(own):
        batch, channels, height, width = step.input_shapes[0]
        shape = (batch, channels, height + 2 * own[0], width + 2 * own[1])
        amounts = step.integers("amounts", (0, 0, *own) * 2)
        source = step.inner("Pad", "padded", (source, amounts), shape)
        pads = (0, 0, max(0, pads[2] - own[0]), max(0, pads[3] - own[1]))
    return step.add(
        "AveragePool", (source,), **_windows(layer), pads=pads, count_include_pad=int(counted and not beyond)
    )


def _windows(layer: nn.MaxPool2d | nn.AvgPool2d) -> dict[str, Any]:
    return {"kernel_shape": pair(layer.kernel_size), "strides": pair(layer.stride)}


def _padding(step: Step, layer: nn.MaxPool2d | nn.AvgPool2d) -> Sides:
    """The layer's padding; with ceil_mode, how far the windows reach beyond the input."""
    own = pair(layer.padding)
    if not layer.ceil_mode:
        return (*own, *own)
    (top, bottom), (left, right) = reached_padding(layer, step.input_shapes[0][2:], step.shape[2:])
    return top, left, bottom, right


def adaptive_average_pool(step: Step, layer: nn.AdaptiveAvgPool2d) -> str:
    """The mean of the whole map, average pooling if windows are equal, else products with a matrix on both sides."""
    (height, width), (rows, columns) = step.input_shapes[0][2:], step.shape[2:]
    if (rows, columns) == (1, 1):
        return step.add("GlobalAveragePool")
    if height % rows == 0 and width % columns == 0:
        window = (height // rows, width // columns)
        return step.add("AveragePool", kernel_shape=window, strides=window)
    batch, channels = step.shape[:2]
    across = _means(step, "across", step.inputs[0], (batch, channels, height), width, columns)
    turned = (batch, channels, columns, height)
    down = step.inner("Transpose", "turned", (across,), turned, perm=(0, 1, 3, 2))
    down = _means(step, "down", down, turned[:3], height, rows)
    return step.add("Transpose", (down,), perm=(0, 1, 3, 2))


def _means(step: Step, part: str, source: str, outer: tuple[int, ...], length: int, windows: int) -> str:
    """Means along the last dimension, of `length` values, in `windows` windows."""
    matrix = step.constant(f"{part}_matrix", np.ascontiguousarray(window_means(length, windows).T, np.float32))
    return step.inner("MatMul", part, (source, matrix), (*outer, windows))


LOWERINGS: Lowerings = {
    nn.MaxPool2d: max_pool,
    nn.AvgPool2d: average_pool,
    nn.AdaptiveAvgPool2d: adaptive_average_pool,
}
