"""Arithmetic on two activations, or on an activation and a constant."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from slimseg.frontends.aten.call import Call, Layer
from slimseg.graph import ops


def add(call: Call) -> Layer | None:
    if call["alpha"] != 1:
        return None
    if call.is_value("self") and call.is_value("other"):
        return Layer(ops.Add, (call["self"], call["other"]), "add")
    return _affine(call, "add", lambda value: ops.Affine(shift=value))


def subtract(call: Call) -> Layer | None:
    if call["alpha"] != 1:
        return None
    if not call.is_value("self"):
        return _affine(call, "sub", lambda value: ops.Affine(torch.tensor(-1.0), value))
    if call.is_value("other"):
        return Layer(ops.Subtract, (call["self"], call["other"]), "sub")
    return _affine(call, "sub", lambda value: ops.Affine(shift=-value.detach()))


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
    return _affine(call, "mul", ops.Affine)


def divide(call: Call) -> Layer | None:
    if not call.is_value("self"):
        return None
    if call.is_value("other"):
        return Layer(ops.Divide, (call["self"], call["other"]), "div")
    return _affine(call, "div", lambda value: ops.Affine(1 / value.detach()))


def together(suffix: str, build: Callable[[], nn.Module]) -> Callable[[Call], Layer | None]:
    """A handler for an operator on two activations."""

    def handler(call: Call) -> Layer | None:
        if not (call.is_value("self") and call.is_value("other")):
            return None
        return Layer(build, (call["self"], call["other"]), suffix)

    return handler


def function(name: str) -> Callable[[Call], Layer]:
    return lambda call: Layer(lambda: ops.Unary(name), (call["self"],), name)


def power(call: Call) -> Layer | None:
    name = ops.Unary.POWERS.get(call["exponent"])
    return function(name)(call) if name else None


def _affine(call: Call, suffix: str, build: Callable[[Tensor], nn.Module]) -> Layer | None:
    """A layer on an activation and a constant that does not enlarge it: a number, or a tensor that broadcasts to it."""
    source, constant = ("self", "other") if call.is_value("self") else ("other", "self")
    if len(call.output_shape) < 2 or call.output_shape != call.shape(source):
        return None
    value = _constant(call, constant)
    return None if value is None else Layer(lambda: build(value), (call[source],), suffix)


def _constant(call: Call, name: str) -> Tensor | None:
    if isinstance(call[name], int | float):
        return torch.tensor(float(call[name]))
    tensor = call.tensor(name)
    if tensor is None or not tensor.is_floating_point():
        return None
    if tensor.numel() == 1:
        return tensor if tensor.ndim == 0 else tensor.detach().reshape(())
    full = (1,) * (len(call.output_shape) - tensor.ndim) + tuple(tensor.shape)
    kept = full if full[0] != 1 else full[1:]  # a first dimension that is no batch stays, as in tokens (H·W, N, C)
    return tensor if tensor.shape == kept else tensor.detach().reshape(kept)
