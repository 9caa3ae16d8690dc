"""Arithmetic on two activations, or on an activation and a constant."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, fx, nn

from slimseg.frontends.aten.call import Call, Chain, Layer
from slimseg.graph import ops


def add(call: Call) -> Layer | None:
    if call["alpha"] != 1:
        return None
    if call.is_value("self") and call.is_value("other"):
        return Layer(ops.Add, (call["self"], call["other"]), "add")
    return _affine(call, "add", lambda value: ops.Affine(shift=value)) or _with_constant(call, "add", ops.Add)


def subtract(call: Call) -> Layer | None:
    if call["alpha"] != 1:
        return None
    if not call.is_value("self"):
        negated = _affine(call, "sub", lambda value: ops.Affine(torch.tensor(-1.0), value))
        return negated or _with_constant(call, "sub", ops.Subtract)
    if call.is_value("other"):
        return Layer(ops.Subtract, (call["self"], call["other"]), "sub")
    shifted = _affine(call, "sub", lambda value: ops.Affine(shift=-value.detach()))
    return shifted or _with_constant(call, "sub", ops.Subtract)


def reverse_subtract(call: Call) -> Layer | None:
    """`other - self`, as in `1 - x`."""
    if call["alpha"] != 1:
        return None
    if call.is_value("self") and call.is_value("other"):
        return Layer(ops.Subtract, (call["other"], call["self"]), "rsub")
    if not call.is_value("self"):
        return _affine(call, "rsub", lambda value: ops.Affine(shift=-value.detach()))
    return _affine(call, "rsub", lambda value: ops.Affine(torch.tensor(-1.0), value))


def multiply(call: Call) -> Layer | None:
    if call.is_value("self") and call.is_value("other"):
        return Layer(ops.Multiply, (call["self"], call["other"]), "mul")
    return _affine(call, "mul", ops.Affine) or _with_constant(call, "mul", ops.Multiply)


def divide(call: Call) -> Layer | Chain | None:
    if not call.is_value("self"):
        scaled = _affine(call, "div", ops.Affine)
        reciprocal = Layer(lambda: ops.Unary("reciprocal"), (call["other"],), "reciprocal")
        return scaled and Chain((reciprocal, replace(scaled, inputs=(0,))))
    if call.is_value("other"):
        return Layer(ops.Divide, (call["self"], call["other"]), "div")
    scaled = _affine(call, "div", lambda value: ops.Affine(1 / value.detach()))
    return scaled or _with_constant(call, "div", ops.Divide)


def together(suffix: str, build: Callable[[], nn.Module]) -> Callable[[Call], Layer | None]:
    """A handler for an operator on two activations."""

    def handler(call: Call) -> Layer | None:
        if call.is_value("self") and call.is_value("other"):
            return Layer(build, (call["self"], call["other"]), suffix)
        source, constant = ("self", "other") if call.is_value("self") else ("other", "self")
        bound = call.tensor(constant)
        if bound is not None and bound.numel() == 1 and call.shape(source) == call.output_shape:
            limits = (float(bound), math.inf) if suffix == "maximum" else (-math.inf, float(bound))
            return Layer(lambda: nn.Hardtanh(*limits), (call[source],), "clip")
        return _with_constant(call, suffix, build)

    return handler


def function(name: str) -> Callable[[Call], Layer]:
    return lambda call: Layer(lambda: ops.Unary(name), (call["self"],), name)


def power(call: Call) -> Layer | None:
    name = ops.Unary.POWERS.get(call["exponent"])
    return function(name)(call) if name else None


def _affine(call: Call, suffix: str, build: Callable[[Tensor], nn.Module]) -> Layer | None:
    """A layer on an activation and a constant: a number, or a tensor, which may enlarge it but in its batch."""
    source, constant = ("self", "other") if call.is_value("self") else ("other", "self")
    before, after = call.shape(source), call.output_shape
    if not after and isinstance(call[constant], int | float):  # of a single number, as a sum over everything
        number = torch.tensor(float(call[constant]))
        return Layer(lambda: build(number), (call[source],), suffix)
    if len(after) < 2 or len(before) != len(after) or before[0] != after[0]:
        return None
    value = _constant(call, constant)
    return None if value is None else Layer(lambda: build(value), (call[source],), suffix)


def _with_constant(call: Call, suffix: str, build: Callable[[], nn.Module]) -> Layer | None:
    """A layer on an activation and a constant, as on two activations, for constants that differ along the batch."""
    rank, operands = len(call.output_shape), [call["self"], call["other"]]
    if not all(isinstance(each, fx.Node) and each.meta["val"].ndim == rank for each in operands) or rank < 2:
        return None
    return Layer(build, (operands[0], operands[1]), suffix)


def _constant(call: Call, name: str) -> Tensor | None:
    if isinstance(call[name], int | float):
        return torch.tensor(float(call[name]))
    tensor = call.tensor(name)
    if tensor is None:
        return None
    tensor = tensor if tensor.is_floating_point() else tensor.float()
    if tensor.numel() == 1:
        return tensor if tensor.ndim == 0 else tensor.detach().reshape(())
    full = (1,) * (len(call.output_shape) - tensor.ndim) + tuple(tensor.shape)
    kept = full if full[0] != 1 else full[1:]  # a first dimension that is no batch stays, as in tokens (H·W, N, C)
    return tensor if tensor.shape == kept else tensor.detach().reshape(kept)
