"""The vocabulary: a record for every class that a canonical node may call, with rules for its shape, cost and channels.

    convolution   convolutions, transposed convolutions, linear layers
    activation    elementwise activations, softmax
    arithmetic    arithmetic on one tensor, on one with constants (batch norm, affine), on two
    normalisation by an image's own statistics
    product       matrix products of two activations
    attention     two such products with a softmax in between
    pooling, resize, reduction, layout

A new class needs a record in one of these files and, for every runtime, a lowering or a refusal with its reason
(`runtimes/*/lowering`). Most classes are torch.nn's; the others are defined in the file of their record and listed in
`graph/ops.py`.
"""

from __future__ import annotations

from torch import nn

from slimseg.graph.vocabulary import (
    activation,
    arithmetic,
    attention,
    convolution,
    layout,
    normalisation,
    pooling,
    product,
    reduction,
    resize,
)
from slimseg.graph.vocabulary.operator import ChannelRule, CutRule, MacsRule, Operator, ShapeRule, kinds

OPERATORS: dict[type[nn.Module], Operator] = {
    operator.kind: operator
    for room in (
        *(convolution, activation, arithmetic, normalisation, product, attention),
        *(pooling, resize, reduction, layout),
    )
    for operator in room.OPERATORS
}
# The classes whose output at each position depends only on the input values at that position.
ELEMENT_WISE = (*activation.ACTIVATIONS, *kinds(arithmetic.OPERATORS))


def operator_of(layer: nn.Module | None) -> Operator | None:
    """The record of a layer's class or of the nearest class that it derives from; None outside the vocabulary."""
    return next((OPERATORS[kind] for kind in type(layer).__mro__ if kind in OPERATORS), None)


def is_never_negative(layer: nn.Module | None) -> bool:
    """Whether no output of a layer is below zero for any input."""
    operator = operator_of(layer)
    return operator is not None and operator.never_negative


__all__ = [
    "ELEMENT_WISE",
    "OPERATORS",
    "ChannelRule",
    "CutRule",
    "MacsRule",
    "Operator",
    "ShapeRule",
    "is_never_negative",
    "operator_of",
]
