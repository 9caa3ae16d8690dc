"""Lowerings of all layers of the vocabulary to MIL, Core ML's language: one function per layer class, all in NCHW.

A lowering either builds operations, the last of which gives the node's value, or raises Unsupported with the reason.
Each file here has a table `LOWERINGS` of its functions by layer class.
"""

from __future__ import annotations

from slimseg.runtimes.coreml.lowering import (
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
from slimseg.runtimes.coreml.lowering.step import Lowerings, Step, Var
from slimseg.runtimes.lowering import Refusals

_ROOMS = (activation, arithmetic, convolution, grid_sample, layout, normalisation, pooling, product, resize)
LOWERINGS: Lowerings = {kind: lowering for room in _ROOMS for kind, lowering in room.LOWERINGS.items()}
REFUSALS: Refusals = {}

__all__ = ["LOWERINGS", "REFUSALS", "Step", "Var"]
