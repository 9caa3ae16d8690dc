"""Integer operators and those of onnxruntime's own domain, as the operators and constants that they consist of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from slimseg.frontends.onnx import activation, arithmetic, convolution, layout, pooling
from slimseg.frontends.onnx.builder import Call, Value
from slimseg.frontends.onnx.tensors import Array
from slimseg.graph import ops

Handler = Callable[[Call], Any]
_ONE = np.ones(1, np.float32)


def _as(call: Call, op: str, inputs: Sequence[Value | Array | None], **attributes: Any) -> Call:
    return Call(call.builder, replace(call.node, op=op, attributes={**call.node.attributes, **attributes}), inputs)


def _dequantised(call: Call, index: int, axis: int = 0) -> Array | Value:
    """A value as it is, since it was never rounded; a constant in real numbers, by the scale and zero behind it."""
    given = call.inputs[index]
    if isinstance(given, Value):
        return given
    scale, zero = call.constant(index + 1), call.constant(index + 2)
    if given is None or scale is None:
        raise call.unknown("it lacks a scale")
    return _real(given, scale, zero, axis)


def _real(given: Array, scale: Array, zero: Array | None, axis: int = 0) -> Array:
    def along(numbers: Array) -> Array:
        shape = [-1 if dim == axis else 1 for dim in range(given.ndim)]
        return numbers if numbers.size == 1 else numbers.reshape(shape)

    moved = given.astype(np.float32) - (0.0 if zero is None else along(zero).astype(np.float32))
    result: Array = (moved * along(scale)).astype(np.float32)
    return result


def _clipped(call: Call, value: Value, scale: int) -> Value:
    """As QuantizeLinear with the scale and zero point at `scale` would."""
    zero = call.inputs[scale + 1] if len(call.inputs) > scale + 1 else None
    return activation.quantize(_as(call, "QuantizeLinear", [value, call.inputs[scale], zero]))


def linear_convolution(call: Call) -> Value:
    """QLinearConv: x, w with their scales and zeros, the result's, and a bias in units of both scales."""
    weight = _dequantised(call, 3)
    bias, scales = call.constant(8) if len(call.inputs) > 8 else None, (call.constant(1), call.constant(4))
    if bias is not None and scales[0] is not None and scales[1] is not None:
        bias = (bias.astype(np.float32) * scales[0] * scales[1].reshape(-1)).astype(np.float32)
    made = convolution.convolution(_as(call, "Conv", [call.value(0), weight, bias]))
    return _clipped(call, made, 6)


def linear_product(call: Call) -> Value:
    """QLinearMatMul."""
    last = call.inputs[3].ndim - 1 if isinstance(call.inputs[3], np.ndarray) else 0
    made = convolution.matrix_product(_as(call, "MatMul", [call.value(0), _dequantised(call, 3, last)]))
    return _clipped(call, made, 6)


def dynamic(call: Call) -> tuple[Value | Array, ...]:
    """DynamicQuantizeLinear: the value itself, with a scale of 1."""
    activation.note_quantised(call)
    return call.value(0), np.asarray(1.0, np.float32), np.asarray(0, np.uint8)


def integer_convolution(call: Call) -> Value:
    weight, zero = call.constant(1), call.constant(3) if len(call.inputs) > 3 else None
    if weight is None:
        raise call.unknown("it has no weights")
    return convolution.convolution(_as(call, "Conv", [call.value(0), _real(weight, _ONE, zero)]))


def integer_product(call: Call) -> Value:
    weight, zero = call.constant(1), call.constant(3) if len(call.inputs) > 3 else None
    if weight is None:
        raise call.unknown("it has no weights")
    real = _real(weight, _ONE, zero, weight.ndim - 1)
    return convolution.matrix_product(_as(call, "MatMul", [call.value(0), real]))


def _of_two(handler: Handler) -> Handler:
    """QLinearAdd and QLinearMul: two values with their scales and zeros, and the result's."""
    return lambda call: _clipped(call, handler(_as(call, "", [_dequantised(call, 0), _dequantised(call, 3)])), 6)


def _of_one(handler: Handler) -> Handler:
    return lambda call: _clipped(call, handler(_as(call, "", [call.value(0)])), 3)


def linear_concat(call: Call) -> Value:
    parts = [_dequantised(call, index) for index in range(2, len(call.inputs), 3)]
    return _clipped(call, layout.concat(_as(call, "Concat", parts)), 0)


def quantised_gemm(call: Call) -> Value:
    """QGemm: A and B with their scales and zeros, a bias in units of both, the result's scale and zero if any."""
    given = [*call.inputs, *[None] * 9][:9]
    bias = given[6]
    if isinstance(bias, np.ndarray) and isinstance(given[1], np.ndarray) and isinstance(given[4], np.ndarray):
        bias = (bias.astype(np.float32) * given[1] * given[4].reshape(-1)).astype(np.float32)
    axis = 0 if call.attribute("transB", 0) else 1
    made = convolution.fully_connected(_as(call, "Gemm", [call.value(0), _dequantised(call, 3, axis), bias]))
    return made if given[7] is None else _clipped(call, made, 7)


def fused_convolution(call: Call) -> Value:
    """A convolution, a value that is added to it, and an activation."""
    value = convolution.convolution(_as(call, "Conv", call.inputs[:3]))
    if len(call.inputs) > 3 and call.inputs[3] is not None:
        value = arithmetic.broadcasting(ops.Add)(_as(call, "Add", [value, call.inputs[3]]))
    return _activated(call, value)


def _activated(call: Call, value: Value) -> Value:
    kind, numbers = call.attribute("activation"), list(call.attribute("activation_params", ()))
    if kind in (None, ""):
        return value
    if kind == "Clip":
        layer = activation.bounds(float(numbers[0]), float(numbers[1]))
        return call.on(value, layer, suffix="clip") if layer else value
    names = {"LeakyRelu": ("alpha",), "HardSigmoid": ("alpha", "beta")}.get(kind, ())
    handlers: Mapping[str, Handler] = {
        "Relu": activation.simple(nn.ReLU),
        "Tanh": activation.simple(nn.Tanh),
        "Sigmoid": activation.simple(nn.Sigmoid),
        "LeakyRelu": activation.leaky_relu,
        "HardSigmoid": activation.hard_sigmoid,
    }
    if kind not in handlers:
        raise call.unknown(f"its activation is {kind}")
    result: Value = handlers[kind](_as(call, kind, [value], **dict(zip(names, numbers, strict=False))))
    return result


def fused_gemm(call: Call) -> Value:
    given = {f"activation_{name}": name for name in ("alpha", "beta", "gamma")}
    numbers = [call.attribute(name) for name in given if call.attribute(name) is not None]
    made = convolution.fully_connected(_as(call, "Gemm", call.inputs))
    return _activated(_as(call, call.node.op, call.inputs, activation_params=numbers), made)


def fused_product(call: Call) -> Value:
    inputs = []
    for each, side in zip(call.inputs, "AB", strict=True):
        dims = list(range(each.rank if isinstance(each, Value) else each.ndim if each is not None else 0))
        if call.attribute(f"transBatch{side}", 0):
            dims = [*dims[1:-1], dims[0], dims[-1]]
        if call.attribute(f"trans{side}", 0):
            dims = [*dims[:-2], dims[-1], dims[-2]]
        inputs.append(_transposed(each, dims))
    made = convolution.matrix_product(_as(call, "MatMul", inputs))
    alpha = float(call.attribute("alpha", 1.0))
    return made if alpha == 1 else call.on(made, ops.Affine(torch.tensor(alpha)), suffix="scale")


def _transposed(given: Value | Array | None, dims: Sequence[int]) -> Value | Array | None:
    """With its dimensions in another order, in which a value is only read."""
    if isinstance(given, Value):
        return replace(given, order=tuple(given.order[dim] for dim in dims))
    return None if given is None else given.transpose(dims)


def biased_gelu(approximate: str) -> Handler:
    def handler(call: Call) -> Value:
        value = call.value(0)
        if len(call.inputs) > 1 and call.inputs[1] is not None:
            value = _sum(call, value, call.inputs[1])
        return call.on(value, nn.GELU(approximate))

    return handler


def _sum(call: Call, value: Value, other: Value | Array) -> Value:
    shift: Callable[[torch.Tensor], nn.Module] = lambda given: ops.Affine(shift=given)  # noqa: E731
    return arithmetic.broadcasting(ops.Add, shift, shift)(_as(call, "Add", [value, other]))


def quick_gelu(call: Call) -> Value:
    """x · sigmoid(alpha · x)."""
    value = call.value(0)
    scaled = call.on(value, ops.Affine(torch.tensor(float(call.attribute("alpha", 1.702)))), suffix="scale")
    gate = call.on(scaled, nn.Sigmoid(), suffix="gate")
    return Value(call.emit(ops.Multiply(), value.node, gate.node), value.order)


def skip_layer_norm(call: Call) -> tuple[Value, ...]:
    """The layer norm of a sum; the sum itself is the fourth result."""
    scale, shift, bias = [*call.inputs[2:5], None, None, None][:3]
    total = arithmetic.broadcasting(ops.Add)(_as(call, "Add", [call.value(0), call.value(1)]))
    total = total if bias is None else _sum(call, total, bias)
    normal = arithmetic.layer_norm(_as(call, "LayerNormalization", [total, scale, shift], axis=-1))
    return normal, normal, normal, total


HANDLERS: Mapping[str, Handler] = {
    "DynamicQuantizeLinear": dynamic,
    "ConvInteger": integer_convolution,
    "MatMulInteger": integer_product,
    "QLinearConv": linear_convolution,
    "QLinearMatMul": linear_product,
    **{
        f"com.microsoft.{name}": handler
        for name, handler in (
            ("QLinearAdd", _of_two(arithmetic.broadcasting(ops.Add, *(lambda value: ops.Affine(shift=value),) * 2))),
            ("QLinearMul", _of_two(arithmetic.broadcasting(ops.Multiply, ops.Affine, ops.Affine))),
            ("QLinearSigmoid", _of_one(activation.simple(nn.Sigmoid))),
            ("QLinearLeakyRelu", _of_one(activation.leaky_relu)),
            ("QLinearSoftmax", _of_one(activation.softmax)),
            ("QLinearAveragePool", _of_one(pooling.average_pool)),
            ("QLinearGlobalAveragePool", _of_one(pooling.global_average)),
            ("QLinearConcat", linear_concat),
            ("QGemm", quantised_gemm),
            ("FusedConv", fused_convolution),
            ("FusedGemm", fused_gemm),
            ("FusedMatMul", fused_product),
            ("Gelu", biased_gelu("none")),
            ("BiasGelu", biased_gelu("none")),
            ("FastGelu", biased_gelu("tanh")),
            ("QuickGelu", quick_gelu),
            ("SkipLayerNormalization", skip_layer_norm),
        )
    },
}
