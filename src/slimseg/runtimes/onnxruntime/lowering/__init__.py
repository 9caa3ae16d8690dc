"""Lowerings of all layers of the vocabulary to ONNX: one function per layer class, NCHW on both sides.

A lowering adds operators, the last of which gives the node's value under the node's name, or raises Unsupported with
the reason. Each file here has a table `LOWERINGS` of its functions by layer class.
"""

from __future__ import annotations

from slimseg.runtimes.lowering import Refusals
from slimseg.runtimes.onnxruntime.lowering import (
    activation,
    arithmetic,
    convolution,
    grid_sample,
    layout,
    normalisation,
    pooling,
    product,
    resize,
)
from slimseg.runtimes.onnxruntime.lowering.step import Lowerings, Step

_ROOMS = (activation, arithmetic, convolution, grid_sample, layout, normalisation, pooling, product, resize)
LOWERINGS: Lowerings = {kind: lowering for room in _ROOMS for kind, lowering in room.LOWERINGS.items()}
REFUSALS: Refusals = {}

__all__ = ["LOWERINGS", "REFUSALS", "Step"]
