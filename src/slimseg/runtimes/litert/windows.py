"""Refuses strides and windows that reach far beyond what they move over: a runtime takes memory in proportion to them.

XNNPACK takes 20 GB for a transposed convolution of 20 columns to 40 with a stride of a million, in a file of 15 kB, and
a pointer for every pixel of every window of a pooling.
"""

from __future__ import annotations

import math
from typing import Any

from slimseg.runtimes.litert import costs

MODEST_STRIDE = 64  # of a transposed convolution; real ones have 2 to 32
MOST_TAPS = 1 << 27  # pixels of all windows of a pooling: 33x33 at each of 256x256 pixels have half as many
_POOLS = ("AVERAGE_POOL_2D", "MAX_POOL_2D", "L2_POOL_2D")


def fault(tensors: costs.Tensors, operator: Any) -> str:
    """What is absurd about an operator, as the end of a sentence about the file; empty for nearly all."""
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
    """Height and width of NHWC; of the filter of a convolution, too, and 0 where there are none."""
    shape = tensors.shape(index)
    return (shape[1], shape[2]) if len(shape) == 4 else (0, 0)
