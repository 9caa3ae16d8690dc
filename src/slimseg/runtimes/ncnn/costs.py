"""Costs of a layer of an ncnn file: parameters, multiply-accumulates and bytes moved, counted as in `graph.costs`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from slimseg.runtimes.ncnn.file import LayerLine

Shape = tuple[int, ...]
BYTES_PER_VALUE = 4
_NUM_OUTPUT, _WEIGHTS = 0, 6
_BIAS = 5


@dataclass(frozen=True)
class Cost:
    params: int
    macs: int
    memory_bytes: int


def cost(layer: LayerLine, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> Cost:
    """Cost of one layer for inputs and outputs of these shapes, (c, h, w) without batch. A Split moves no bytes."""
    weights = _params(layer)
    values = 0 if layer.kind == "Split" else sum(math.prod(shape) for shape in (*inputs, *outputs))
    return Cost(weights, _macs(layer, inputs, outputs), BYTES_PER_VALUE * (values + weights))


def _params(layer: LayerLine) -> int:
    """How many numbers a layer stores in the `.bin`."""

    def integer(key: int) -> int:
        return int(layer.number(key))

    if layer.kind in ("Convolution", "ConvolutionDepthWise", "Deconvolution", "DeconvolutionDepthWise"):
        return integer(_WEIGHTS) + (integer(_NUM_OUTPUT) if integer(_BIAS) else 0)
    if layer.kind == "InnerProduct":
        return integer(2) + (integer(_NUM_OUTPUT) if integer(1) else 0)
    if layer.kind == "Scale":
        return max(0, integer(0)) * (1 + integer(1))
    if layer.kind in ("Bias", "PReLU"):
        return integer(0)
    if layer.kind == "MemoryData":
        return math.prod(integer(key) or 1 for key in (0, 1, 2, 11))
    return 0


def _macs(layer: LayerLine, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
    """Multiply-accumulates of a layer.

    Every weight of a convolution is used once per pixel of the result, or of the input if it is transposed.
    """
    if layer.kind in ("Convolution", "ConvolutionDepthWise"):
        return int(layer.number(_WEIGHTS)) * math.prod(outputs[0][1:])
    if layer.kind in ("Deconvolution", "DeconvolutionDepthWise"):
        return int(layer.number(_WEIGHTS)) * math.prod(inputs[0][1:])
    if layer.kind == "InnerProduct":
        return int(layer.number(2)) * math.prod(outputs[0][:-1])
    return 0
