"""Arithmetic on one or two tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from ai_edge_litert import schema_py_generated as tflite
from torch import nn

from slimseg.graph import ops
from slimseg.runtimes.litert.writing.dimensions import Order
from slimseg.runtimes.litert.writing.lowering.step import Fused, Lowerings, Op, Options, Step, unary
from slimseg.runtimes.lowering import spelling, weights
from slimseg.tflite.schema import ModelBuilder

_FUSED_BINARY = {
    ops.Add: (Op.ADD, tflite.AddOptionsT, Options.AddOptions),
    ops.Subtract: (Op.SUB, tflite.SubOptionsT, Options.SubOptions),
    ops.Multiply: (Op.MUL, tflite.MulOptionsT, Options.MulOptions),
    ops.Divide: (Op.DIV, tflite.DivOptionsT, Options.DivOptions),
}
_BINARY = {ops.Maximum: Op.MAXIMUM, ops.Minimum: Op.MINIMUM}
_UNARY = {
    "abs": Op.ABS,
    "exp": Op.EXP,
    "log": Op.LOG,
    "neg": Op.NEG,
    "sqrt": Op.SQRT,
    "rsqrt": Op.RSQRT,
    "square": Op.SQUARE,
    "sin": Op.SIN,
    "cos": Op.COS,
    "floor": Op.FLOOR,
    "sign": Op.SIGN,
}


def binary(builder: ModelBuilder, step: Step, layer: Any) -> int:
    """Arithmetic on two tensors that broadcast against each other."""
    if type(layer) in _BINARY:
        return unary(
            builder, step, _BINARY[type(layer)], tflite.MaximumMinimumOptionsT(), Options.MaximumMinimumOptions
        )
    code, options_class, kind = _FUSED_BINARY[type(layer)]
    options = options_class()
    options.fusedActivationFunction = step.fused
    return unary(builder, step, code, options, kind)


def function(builder: ModelBuilder, step: Step, layer: ops.Unary) -> int:
    if layer.function == "reciprocal":
        one, target = (
            builder.constant(f"{step.name}_one", np.asarray(1.0, np.float32)),
            builder.tensor(step.name, step.shape),
        )
        builder.operator(Op.DIV, (one, *step.inputs), target, tflite.DivOptionsT(), Options.DivOptions)
        return target
    return unary(builder, step, spelling(_UNARY, layer.function, step.name, "TFLite"))


def affine(builder: ModelBuilder, step: Step, layer: ops.Affine) -> int:
    """MUL, ADD, or MUL followed by ADD."""
    source, last = step.inputs[0], [name for name in ("scale", "shift") if getattr(layer, name) is not None][-1]
    for name, code, options, kind in (
        ("scale", Op.MUL, tflite.MulOptionsT(), Options.MulOptions),
        ("shift", Op.ADD, tflite.AddOptionsT(), Options.AddOptions),
    ):
        value = getattr(layer, name)
        if value is not None:
            constant = builder.constant(f"{step.name}_{name}", _broadcastable(value, step.orders[0]))
            options.fusedActivationFunction = step.fused if name == last else Fused.NONE
            target = builder.tensor(step.name if name == last else f"{step.name}_scaled", step.shape)
            builder.operator(code, (source, constant), target, options, kind)
            source = target
    return source


def _broadcastable(value: torch.Tensor, order: Order) -> np.ndarray[Any, Any]:
    """A constant in the order in which the value is stored; a single number, or one for each last index, is flat."""
    if value.ndim > len(order):  # it broadcasts the input, which is then in the graph's order
        return weights(value)
    whole = value.reshape((1,) * (len(order) - value.ndim) + tuple(value.shape))
    stored = weights(whole, order)
    return stored.reshape(-1) if stored.size == stored.shape[-1] else stored


LOWERINGS: Lowerings = {
    ops.Unary: function,
    ops.Add: binary,
    ops.Subtract: binary,
    ops.Divide: binary,
    ops.Maximum: binary,
    ops.Minimum: binary,
    ops.Multiply: binary,
    ops.Affine: affine,
}
FUSES: tuple[type[nn.Module], ...] = (*_FUSED_BINARY, ops.Affine)
