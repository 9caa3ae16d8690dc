"""Sums, products, reductions and plain functions of tensors and constants."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from torch import nn

from slimseg.errors import ModelError
from slimseg.frontends.keras import activations
from slimseg.frontends.keras.builder import Builder, Value
from slimseg.frontends.keras.layout import reshape
from slimseg.graph import ops

_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "//": operator.floordiv,
}
_LARGEST = 1e9  # largest number that a Lambda may compute with


def add(b: Builder, x: Any, y: Any, suffix: str = "") -> Any:
    return _binary(b, x, y, ops.Add, lambda v, c: b.affine(v, shift=c, suffix=suffix), None, suffix)


def multiply(b: Builder, x: Any, y: Any, suffix: str = "") -> Any:
    return _binary(b, x, y, ops.Multiply, lambda v, c: b.affine(v, scale=c, suffix=suffix), None, suffix)


def subtract(b: Builder, x: Any, y: Any, suffix: str = "") -> Any:
    return _binary(
        b, x, y, ops.Subtract,
        lambda v, c: b.affine(v, shift=-np.asarray(c, np.float32), suffix=suffix),
        lambda c, v: b.affine(v, scale=-1.0, shift=c, suffix=suffix),
        suffix,
    )  # fmt: skip


def divide(b: Builder, x: Any, y: Any, suffix: str = "") -> Any:
    def by_constant(value: Value, divisor: Any) -> Value:
        numbers = np.asarray(divisor, np.float64)
        if not np.all(numbers):
            raise ModelError("the network divides by zero")
        return b.affine(value, scale=1.0 / numbers, suffix=suffix)

    return _binary(b, x, y, ops.Divide, by_constant, _no_counterpart, suffix)


def maximum(b: Builder, x: Any, y: Any, suffix: str = "") -> Any:
    return _binary(
        b, x, y, ops.Maximum, lambda v, c: activations.clip(b, v, _number(c), None, suffix=suffix), None, suffix
    )


def minimum(b: Builder, x: Any, y: Any, suffix: str = "") -> Any:
    return _binary(
        b, x, y, ops.Minimum, lambda v, c: activations.clip(b, v, None, _number(c), suffix=suffix), None, suffix
    )


def _binary(
    b: Builder,
    x: Any,
    y: Any,
    module: Callable[[], nn.Module],
    value_first: Callable[[Value, Any], Value],
    constant_first: Callable[[Any, Value], Value] | None,
    suffix: str,
) -> Any:
    """Two tensors, or a tensor and a constant in either order (`constant_first` None: the order does not matter)."""
    if isinstance(x, Value) and isinstance(y, Value):
        if len(x.shape) != len(y.shape):
            raise ModelError(f"{x.keras_shape} and {y.keras_shape} are combined, but their dimensions differ")
        return b.emit(module(), x, y, suffix=suffix)
    if isinstance(x, Value):
        return value_first(x, y)
    if isinstance(y, Value):
        return constant_first(x, y) if constant_first else value_first(y, x)
    raise ModelError("a sum or product of constants alone is not a layer of a network")


def _no_counterpart(constant: Any, value: Value) -> Value:
    raise ModelError("a constant divided by a tensor has no counterpart in slimseg: give the .tflite instead")


def _number(value: Any) -> float:
    if np.size(value) != 1:
        raise ModelError("a bound per channel has no counterpart in slimseg: give the .tflite instead")
    return float(np.asarray(value).reshape(()))


def compute(sign: str, x: Any, y: Any) -> Any:
    """`x sign y` for two plain numbers of moderate size, as in sizes that a Lambda computes.

    Raises:
        ModelError: an operand is something else.
    """
    both = all(isinstance(each, int | float) and abs(each) <= _LARGEST for each in (x, y))
    if not both or (sign in ("/", "//") and not y):
        raise ModelError(f"it computes {x!r} {sign} {y!r}, which is not a size")
    return _OPERATORS[sign](x, y)


def clip(b: Builder, x: Value, low: Any, high: Any, suffix: str = "") -> Value:
    return activations.clip(b, x, None if low is None else _number(low), None if high is None else _number(high))


def power(b: Builder, x: Value, exponent: Any, suffix: str = "") -> Value:
    if _number(exponent) == 1:
        return x
    if _number(exponent) not in ops.Unary.POWERS:
        raise ModelError(f"the power {exponent} has no counterpart in slimseg: give the .tflite instead")
    return b.emit(ops.Unary(ops.Unary.POWERS[_number(exponent)]), x, suffix=suffix)


def unary(function: str) -> Callable[..., Value]:
    def emit(b: Builder, x: Value, suffix: str = "") -> Value:
        return b.emit(ops.Unary(function), x, suffix=suffix)

    return emit


def reduction(kind: Any) -> Callable[..., Value]:
    def emit(b: Builder, x: Value, axis: Any = None, keepdims: bool = False, suffix: str = "") -> Value:
        return reduce(b, x, kind, axis, keepdims, suffix)

    return emit


def reduce(b: Builder, x: Value, kind: Any, axis: Any, keepdims: bool, suffix: str = "") -> Value:
    axes = [axis] if isinstance(axis, int) else axis
    if not axes or 0 in (each % len(x.shape) for each in axes):
        raise ModelError(f"a {kind} over the batch has no counterpart in slimseg")
    dims = tuple(sorted(x.dim(each) for each in axes))
    inner = suffix if keepdims else f"{suffix}_kept".strip("_")
    if kind == "mean" and dims == (2, 3) and len(x.shape) == 4:
        kept = b.emit(nn.AdaptiveAvgPool2d((1, 1)), x, suffix=inner)
    else:
        kept = b.emit(ops.Reduce(kind, dims, True), x, suffix=inner)
    if keepdims:
        return kept
    gone = {each % len(x.shape) for each in axes}
    return reshape(b, kept, [size for each, size in enumerate(x.keras_shape) if each not in gone], suffix=suffix)


def arg_max(b: Builder, x: Value, axis: Any = -1, keepdims: bool = False, suffix: str = "") -> Value:
    if len(x.shape) != 4 or x.dim(axis) != 1 or keepdims:
        raise ModelError("an argmax over anything but the channels has no counterpart in slimseg")
    return b.emit(ops.ArgMax(), x, suffix=suffix)


def cast(b: Builder, x: Value, dtype: Any, suffix: str = "") -> Value:
    """Floats stay float32, whatever their width; integers get the given type."""
    wanted = str(dtype)
    if wanted in ("int32", "int64"):
        return b.emit(ops.Cast(wanted), x, suffix=suffix)  # type: ignore[arg-type]
    if not wanted.startswith(("float", "bfloat")):
        raise ModelError(f"a cast to {wanted} has no counterpart in slimseg: give the .tflite instead")
    source = b.root.get_submodule(str(x.node.target)) if x.node.op == "call_module" else None
    return b.emit(ops.Cast("float32"), x, suffix=suffix) if isinstance(source, ops.ArgMax | ops.Cast) else x
