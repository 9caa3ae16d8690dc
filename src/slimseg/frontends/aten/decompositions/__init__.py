"""Decompositions of ATen operators, by their names: functions in plain torch with the operators' arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from slimseg.frontends.aten.call import Call
from slimseg.frontends.aten.decompositions import (
    attention,
    comparisons,
    dynamic_convolution,
    functions,
    gathering,
    matrices,
    ordering,
    positions,
    recurrent,
    sampling,
    statistics,
    trigonometry,
    volumes,
    whole,
    windows,
)

DECOMPOSITIONS: Mapping[str, Callable[..., Any]] = {
    name: function
    for room in (
        *(attention, comparisons, dynamic_convolution, functions, gathering, matrices),
        *(ordering, positions, recurrent, sampling, statistics, trigonometry, volumes, whole, windows),
    )
    for name, function in room.TABLE.items()
}
# For decompositions with other arguments than the operator's: the arguments, from the call; None if there is none.
PREPARED: Mapping[str, Callable[[Call], Mapping[str, Any] | None]] = {
    **dynamic_convolution.PREPARED,
    **gathering.PREPARED,
    **matrices.PREPARED,
    **ordering.PREPARED,
    **positions.PREPARED,
    **recurrent.PREPARED,
    **whole.PREPARED,
    **windows.PREPARED,
}
# Operators that keep their meaning as one node and lose it in torch's decompositions, some of which join the batch with
# other dimensions, so that they would hold for one image only.
KEPT = frozenset(
    (
        *("conv2d.default", "conv2d.padding", "conv_transpose2d.input", "linear.default"),
        *("layer_norm.default", "group_norm.default", "scaled_dot_product_attention.default"),
        *("einsum.default", "tensordot.default", "bilinear.default", "inner.default", "mean.default", "sum.default"),
    )
)
# Operators that become some calls for each of many steps.
MANY_STEPS = frozenset(recurrent.TABLE)

__all__ = ["DECOMPOSITIONS", "KEPT", "MANY_STEPS", "PREPARED"]
