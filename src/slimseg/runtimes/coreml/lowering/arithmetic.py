"""Arithmetic on one or two tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from slimseg.graph import ops
from slimseg.runtimes.coreml.lowering.step import Lowerings, Step, Var
from slimseg.runtimes.lowering import spelling, weights

_UNARY: dict[str, tuple[str, dict[str, float]]] = {  # MIL's operation, and its arguments besides the tensor
    "abs": ("abs", {}),
    "exp": ("exp", {}),
    "log": ("log", {}),
    "neg": ("mul", {"y": -1.0}),
    "sqrt": ("sqrt", {}),
    "rsqrt": ("rsqrt", {}),
    "square": ("square", {}),
    "sin": ("sin", {}),
    "cos": ("cos", {}),
    "floor": ("floor", {}),
    "sign": ("sign", {}),
    "reciprocal": ("inverse", {"epsilon": 0.0}),
}


def binary(operation: str) -> Callable[[Step, Any], Var]:
    """A lowering to an operation on two tensors that broadcast against each other."""
    return lambda step, layer: getattr(step.mb, operation)(x=step.inputs[0], y=step.inputs[1], name=step.name)


def function(step: Step, layer: ops.Unary) -> Var:
    operation, settings = spelling(_UNARY, layer.function, step.node.name, "Core ML")
    return getattr(step.mb, operation)(x=step.inputs[0], **settings, name=step.name)


def affine(step: Step, layer: ops.Affine) -> Var:
    """A product, a sum, or a product followed by a sum."""
    result = step.inputs[0]
    if layer.scale is not None:
        name = step.name if layer.shift is None else step.named("scaled")
        result = step.mb.mul(x=result, y=_broadcastable(layer.scale, step), name=name)
    if layer.shift is not None:
        result = step.mb.add(x=result, y=_broadcastable(layer.shift, step), name=step.name)
    return result


def _broadcastable(value: torch.Tensor, step: Step) -> Any:
    """A constant with as many dimensions as the node's result; a single number becomes a float."""
    if value.numel() == 1 and value.ndim <= len(step.input_shapes[0]):
        return float(value)
    return weights(value.reshape((1,) * (len(step.shape) - value.ndim) + tuple(value.shape)))


LOWERINGS: Lowerings = {
    ops.Unary: function,
    ops.Add: binary("add"),
    ops.Subtract: binary("sub"),
    ops.Multiply: binary("mul"),
    ops.Divide: binary("real_div"),
    ops.Maximum: binary("maximum"),
    ops.Minimum: binary("minimum"),
    ops.Affine: affine,
}
