"""Lowerings of all layers of the vocabulary to TFLite: one function per layer class, from NCHW to NHWC.

A lowering either emits operators, the last of which gives the node's tensor, or raises Unsupported with the reason.
Each file here has a table `LOWERINGS` of its functions by layer class; `FUSES` has the classes whose operator can apply
a fused activation.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from slimseg.runtimes.litert.writing.lowering import (
    activation,
    arithmetic,
    convolution,
    grid_sample,
    layout,
    normalisation,
    pooling,
    product,
)
from slimseg.runtimes.litert.writing.lowering.step import Fused, Lowerings, Step
from slimseg.runtimes.lowering import Refusals

_ROOMS = (activation, arithmetic, convolution, grid_sample, layout, normalisation, pooling, product)
LOWERINGS: Lowerings = {kind: lowering for room in _ROOMS for kind, lowering in room.LOWERINGS.items()}
REFUSALS: Refusals = {}

FUSABLE: dict[type[nn.Module], int] = {nn.ReLU: Fused.RELU, nn.ReLU6: Fused.RELU6}
_FUSE_INTO = (*convolution.FUSES, *pooling.FUSES, *arithmetic.FUSES)


def fuses(layer: nn.Module, source: Sequence[int], shape: Sequence[int]) -> bool:
    """Whether a layer's operator applies the activation behind it; shapes are those of its input and result, NCHW."""
    if isinstance(layer, nn.ConvTranspose2d):
        return convolution.is_cropped(layer, source[2:], shape[2:])
    return isinstance(layer, _FUSE_INTO)


__all__ = ["FUSABLE", "LOWERINGS", "REFUSALS", "Fused", "Step", "fuses"]
