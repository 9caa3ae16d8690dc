"""Lowerings of all layers of the vocabulary to ncnn: one function per layer class, torch's NCHW on both sides.

A lowering adds layers to the net and returns the blob that holds the node's value, or raises Unsupported with the
reason. Each file here has a table `LOWERINGS` of its functions by layer class. ncnn has no batch dimension. A result of
global pooling stays flat, (C,) instead of (C, 1, 1), until a layer needs a map: ncnn multiplies a flat blob and a map
channel by channel.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeGuard

from torch import nn

from slimseg.graph import ops
from slimseg.runtimes.lowering import Refusals
from slimseg.runtimes.ncnn.lowering import (
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
from slimseg.runtimes.ncnn.lowering.activation import fused
from slimseg.runtimes.ncnn.lowering.step import Lowerings, Step, unbatched
from slimseg.runtimes.ncnn.net import Param

Activation = Mapping[int, Param]

_ROOMS = (activation, arithmetic, convolution, grid_sample, layout, normalisation, pooling, product, resize)
LOWERINGS: Lowerings = {kind: lowering for room in _ROOMS for kind, lowering in room.LOWERINGS.items()}
REFUSALS: Refusals = {ops.ArgMax: "ncnn's ArgMax outputs one number for a whole blob"}


def fuses(layer: nn.Module | None) -> bool:
    """Whether ncnn's layer can apply a fused activation to its result."""
    return isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear) and not convolution.is_scale(layer)


def pads(layer: nn.Module | None) -> TypeGuard[nn.Conv2d]:
    """Whether ncnn's layer pads its input itself, with any amount on each side."""
    return isinstance(layer, nn.Conv2d) and not convolution.is_scale(layer)


__all__ = ["LOWERINGS", "REFUSALS", "Activation", "Step", "fused", "fuses", "pads", "unbatched"]
