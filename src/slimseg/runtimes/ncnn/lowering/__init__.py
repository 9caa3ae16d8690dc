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

from slimseg.errors import Unsupported
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
from slimseg.runtimes.ncnn.lowering.step import MOST_DIMS, Lowerings, Step, unbatched
from slimseg.runtimes.ncnn.net import Param

Activation = Mapping[int, Param]

_OF_ONE_VALUE = (
    *(nn.ReLU, nn.ReLU6, nn.Hardtanh, nn.LeakyReLU, nn.ELU, nn.Hardswish, nn.Hardsigmoid, nn.SiLU, nn.Sigmoid, nn.Tanh),
    *(nn.GELU, ops.Unary, ops.Cast),
)
# Layers that join the dimensions that make a value longer than a Mat.
_OF_ANY_RANK = (ops.Reshape, ops.Transpose, ops.Slice, nn.Softmax, *arithmetic.BINARY, *_OF_ONE_VALUE)
# Layers that treat a batch of windows as an outer dimension; to ncnn's other layers the outermost are the channels.
_OF_WINDOWS = (
    *(ops.Concat, ops.Constant, ops.Reduce, ops.MatMul, nn.Linear, ops.Normalise, ops.Affine),
    *_OF_ANY_RANK,
)
_ROOMS = (activation, arithmetic, convolution, grid_sample, layout, normalisation, pooling, product, resize)
LOWERINGS: Lowerings = {kind: lowering for room in _ROOMS for kind, lowering in room.LOWERINGS.items()}
REFUSALS: Refusals = {ops.ArgMax: "ncnn's ArgMax outputs one number for a whole blob"}


def require_dimensions(step: Step) -> None:
    """Refuse what no Mat can hold, and a batch of windows where ncnn takes the outermost dimension for the channels.

    Raises:
        Unsupported: see above.
    """
    if any(size[0] != 1 for size in (*step.input_sizes, step.size)) and not isinstance(step.layer, _OF_WINDOWS):
        raise Unsupported(f"{step.name}: ncnn has no batch, and {type(step.layer).__name__} cannot do without")
    longest = max(step.shape, *step.input_shapes, key=len)
    if len(longest) > MOST_DIMS and not isinstance(step.layer, _OF_ANY_RANK):
        raise Unsupported(f"{step.name}: ncnn's blobs have one to four dimensions, unlike {longest}")


def fuses(layer: nn.Module | None) -> bool:
    """Whether ncnn's layer can apply a fused activation to its result."""
    return isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear) and not convolution.is_scale(layer)


def pads(layer: nn.Module | None) -> TypeGuard[nn.Conv2d]:
    """Whether ncnn's layer pads its input itself, with any amount on each side."""
    return isinstance(layer, nn.Conv2d) and not convolution.is_scale(layer)


__all__ = [
    "LOWERINGS",
    "MOST_DIMS",
    "REFUSALS",
    "Activation",
    "Step",
    "fused",
    "fuses",
    "pads",
    "require_dimensions",
    "unbatched",
]
