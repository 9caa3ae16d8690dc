"""Activations."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar

import numpy as np
import torch
from torch import nn

from slimseg.frontends.onnx.arithmetic import stored
from slimseg.frontends.onnx.builder import Call, Value, parameter
from slimseg.frontends.onnx.tensors import Array
from slimseg.graph import ops
from slimseg.graph.numbers import as_written
from slimseg.graph.vocabulary import is_never_negative


def simple(build: Callable[[], nn.Module]) -> Callable[[Call], Value]:
    """A handler for a layer without settings."""
    return lambda call: call.on(call.value(), build())


def bounds(low: float, high: float) -> nn.Module | None:
    """The layer that clips values to two bounds; None if no value is clipped.

    Raises:
        ValueError: no value lies between the bounds.
    """
    if math.isinf(low) and math.isinf(high):
        return None
    if low == 0 and math.isinf(high):
        return nn.ReLU()
    if (low, high) == (0.0, 6.0):
        return nn.ReLU6()
    if not low < high:
        raise ValueError(f"its range from {low} to {high} is empty")
    return nn.Hardtanh(low, high)


def clip(call: Call) -> Value:
    """Clip. Bounds are attributes before opset 11, inputs since; float32's own limits mean no bound."""
    limit = float(np.finfo(np.float32).max)
    low = _number(call.constant(1), call.attribute("min", -math.inf))
    high = _number(call.constant(2), call.attribute("max", math.inf))
    layer = bounds(-math.inf if low <= -limit else low, math.inf if high >= limit else high)
    return call.on(call.value(), layer) if layer else call.value()


def _number(given: Array | None, otherwise: float) -> float:
    return float(otherwise) if given is None else as_written(float(given.reshape(-1)[0]))


def leaky_relu(call: Call) -> Value:
    return call.on(call.value(), nn.LeakyReLU(float(call.attribute("alpha", 0.01))))


def elu(call: Call) -> Value:
    return call.on(call.value(), nn.ELU(float(call.attribute("alpha", 1.0))))


def prelu(call: Call) -> Value:
    """One slope, one per channel, or one per value."""
    value, slope = call.value(), call.constant(1)
    if slope is None:
        raise call.unknown("it has no slope")
    slopes = stored(call, value, slope)
    if slopes.size == 1:
        return _prelu(call, value, slopes.reshape(1))
    if slopes.shape[1:] == (1,) * (slopes.ndim - 1) and slopes.shape[0] == value.stored[1]:
        return _prelu(call, value, slopes.reshape(-1))
    if value.rank != 4:
        raise call.unknown(f"its slopes of shape {slope.shape} do not fit a map")
    full = np.broadcast_to(slopes, value.stored[1:])
    return Value(call.emit(ops.SpatialPReLU(parameter(full)), value.node, key=call.key(value.stored)), value.order)


def _prelu(call: Call, value: Value, slopes: Array) -> Value:
    layer = nn.PReLU(len(slopes), device="meta")
    layer.weight = parameter(slopes)
    return Value(call.emit(layer, value.node, key=call.key()), value.order)


def hard_sigmoid(call: Call) -> Value:
    """min(max(alpha·x + beta, 0), 1), which is torch's layer for alpha = 1/6 and beta = 1/2."""
    alpha, beta = float(call.attribute("alpha", 0.2)), float(call.attribute("beta", 0.5))
    if math.isclose(alpha, 1 / 6, rel_tol=1e-3) and beta == 0.5:
        return call.on(call.value(), nn.Hardsigmoid())
    line = call.on(call.value(), ops.Affine(torch.tensor(alpha), torch.tensor(beta)), suffix="line")
    return call.on(line, nn.Hardtanh(0.0, 1.0))


def gelu(call: Call) -> Value:
    return call.on(call.value(), nn.GELU(call.attribute("approximate", "none")))


def softplus(call: Call) -> Value:
    """log(1 + exp x) as max(x, 0) + log(1 + exp(−|x|)), which does not overflow."""
    x = call.value()
    parts = (
        ops.Unary("abs"),
        ops.Unary("neg"),
        ops.Unary("exp"),
        ops.Affine(shift=torch.tensor(1.0)),
        ops.Unary("log"),
    )
    rest = x
    for number, layer in enumerate(parts):
        rest = call.on(rest, layer, suffix=f"part{number}")
    above = call.on(x, nn.ReLU(), suffix="above")
    return Value(call.emit(ops.Add(), above.node, rest.node), x.order)


def mish(call: Call) -> Value:
    """x · tanh(softplus x)."""
    gate = call.on(softplus(call), nn.Tanh(), suffix="gate")
    return Value(call.emit(ops.Multiply(), call.value().node, gate.node), gate.order)


def softmax(call: Call) -> Value:
    """Softmax over one dimension. Before opset 13 it runs over all dimensions from `axis` on, flattened into one."""
    value = call.value()
    newer = call.opset >= 13
    axis = int(call.attribute("axis", -1 if newer else 1)) % value.rank
    if newer:
        return call.on(value, nn.Softmax(value.order[axis]))
    long = [dim for dim in range(axis, value.rank) if value.shape[dim] > 1]
    if len(long) <= 1:
        return call.on(value, nn.Softmax(value.order[long[0] if long else axis]))
    value = call.plain()
    flat = (*value.shape[:axis], math.prod(value.shape[axis:]))
    rows = call.emit(ops.Reshape(flat, channels_last=False), value.node, suffix="flat")
    soft = call.emit(nn.Softmax(len(flat) - 1), rows)
    return Value(call.emit(ops.Reshape(value.shape, channels_last=False), soft, suffix="map"), value.order)


def log_softmax(call: Call) -> Value:
    return call.on(softmax(call), ops.Unary("log"), suffix="log")


def quantize(call: Call) -> Value:
    """QuantizeLinear and DequantizeLinear round values and clip them to the range of the integers.

    Rounding is left out. The clipping stays, since quantisers rely on it where they removed a ReLU or ReLU6.
    """
    value, scale, zero = call.value(), call.constant(1), call.constant(2)
    note_quantised(call)
    if scale is None or scale.size != 1:
        raise call.unknown("it does not have a single scale")
    kind = np.iinfo(np.uint8 if zero is None else zero.dtype)
    lowest = 0 if zero is None else int(zero.reshape(-1)[0])
    if lowest != kind.min or is_never_negative(call.builder.layer(value.node)):
        return value
    highest = (kind.max - kind.min) * float(scale.reshape(-1)[0])
    return call.on(value, nn.ReLU6() if math.isclose(highest, 6, rel_tol=0.01) else nn.ReLU())


def note_quantised(call: Call) -> None:
    call.builder.note(
        "the file is quantised; it is opened in float, with the rounded weights and without rounding of activations"
    )


class Erf(ops.Unary):
    """Erf, which is not in the vocabulary: a placeholder until graph/spellings replaces it and the GELU around it."""

    FUNCTIONS: ClassVar = {"erf": torch.erf}

    def __init__(self) -> None:
        super().__init__("erf")
