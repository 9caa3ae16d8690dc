"""Refuses strides and windows far larger than their image: a runtime allocates memory in proportion to them.

For a transposed convolution from 20 columns to 40 with a stride of a million, in a file of 15 kB, XNNPACK allocates
20 GB; for a pooling it stores a pointer for every pixel of every window.
"""

from __future__ import annotations

import math
from typing import Any

from slimseg.tflite import costs

MODEST_STRIDE = 64  # strides of a transposed convolution up to this are not checked; real ones are 2 to 32
MOST_TAPS = 1 << 27  # limit for the pixels of all windows of a pooling: 33x33 at each of 256x256 pixels are half of it
_POOLS = ("AVERAGE_POOL_2D", "MAX_POOL_2D", "L2_POOL_2D")


def fault(tensors: costs.Tensors, operator: Any) -> str:
    """What is absurd about an operator, as the end of a sentence about it; empty for a normal operator."""
    op = tensors.op_name(operator)
    if op == "TRANSPOSE_CONV":
        return _of_stride(tensors, operator)
    return _of_windows(tensors, operator) if op in _POOLS else ""


def _of_stride(tensors: costs.Tensors, operator: Any) -> str:
    _, weights, given = (_sides(tensors, int(index)) for index in operator.inputs[:3])
    made = _sides(tensors, int(operator.outputs[0]))
    strides = operator.builtinOptions.strideH, operator.builtinOptions.strideW
    for side, stride, window, result in zip(given, strides, weights, made, strict=True):
        if stride > MODEST_STRIDE and (side - 1) * stride >= result + window:
            return f"has a stride of {stride} from {side} pixels to {result}: it is damaged"
    return ""


def _of_windows(tensors: costs.Tensors, operator: Any) -> str:
    window = operator.builtinOptions.filterHeight, operator.builtinOptions.filterWidth
    if math.prod(_sides(tensors, int(operator.outputs[0]))) * math.prod(window) > MOST_TAPS:
        return f"has windows of {window[0]}x{window[1]} pixels: it is damaged"
    return ""


def _sides(tensors: costs.Tensors, index: int) -> tuple[int, int]:
    """Height and width of a tensor in NHWC, or of a convolution's filter; (0, 0) unless it has four dimensions."""
    shape = tensors.shape(index)
    return (shape[1], shape[2]) if len(shape) == 4 else (0, 0)
