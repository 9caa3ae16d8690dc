"""The vocabulary's classes in one namespace: `ops.Add`, `ops.Resize`, ...; graph/vocabulary has the rules for each.

A node that calls anything other than these and torch's own classes (`vocabulary.OPERATORS`) is opaque: it runs and is
timed, but no technique changes it.
"""

from __future__ import annotations

from slimseg.graph.vocabulary import ELEMENT_WISE
from slimseg.graph.vocabulary.activation import ACTIVATIONS, PLAIN_ACTIVATIONS, SpatialPReLU
from slimseg.graph.vocabulary.arithmetic import Add, Affine, Divide, Maximum, Minimum, Multiply, Subtract, Unary
from slimseg.graph.vocabulary.attention import Attention
from slimseg.graph.vocabulary.convolution import (
    CONVOLUTIONS,
    MIXING,
    CroppedConvTranspose2d,
    Mixing,
    is_depthwise,
    keeps_channels_apart,
)
from slimseg.graph.vocabulary.layout import (
    Cast,
    Concat,
    Constant,
    DepthToSpace,
    NumberType,
    Pad,
    Reshape,
    Slice,
    SpaceToDepth,
    Transpose,
)
from slimseg.graph.vocabulary.normalisation import Normalise
from slimseg.graph.vocabulary.pooling import POOLINGS
from slimseg.graph.vocabulary.product import MatMul
from slimseg.graph.vocabulary.reduction import ArgMax, Reduce, Reduction
from slimseg.graph.vocabulary.resize import Coordinates, Resize, ResizeMode

__all__ = [
    "ACTIVATIONS",
    "CONVOLUTIONS",
    "ELEMENT_WISE",
    "MIXING",
    "PLAIN_ACTIVATIONS",
    "POOLINGS",
    "Add",
    "Affine",
    "ArgMax",
    "Attention",
    "Cast",
    "Concat",
    "Constant",
    "Coordinates",
    "CroppedConvTranspose2d",
    "DepthToSpace",
    "Divide",
    "MatMul",
    "Maximum",
    "Minimum",
    "Mixing",
    "Multiply",
    "Normalise",
    "NumberType",
    "Pad",
    "Reduce",
    "Reduction",
    "Reshape",
    "Resize",
    "ResizeMode",
    "Slice",
    "SpaceToDepth",
    "SpatialPReLU",
    "Subtract",
    "Transpose",
    "Unary",
    "is_depthwise",
    "keeps_channels_apart",
]
