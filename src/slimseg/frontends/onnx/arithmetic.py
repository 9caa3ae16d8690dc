"""Arithmetic on two values, or on a value and a constant, and normalisation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, fx, nn

from slimseg.frontends.onnx.builder import Call, Value, parameter, plain
from slimseg.frontends.onnx.tensors import Array
from slimseg.graph import ops


def broadcasting(
    layer: type[nn.Module],
    first: Callable[[Tensor], nn.Module] | None = None,
    second: Callable[[Tensor], nn.Module] | None = None,
) -> Callable[[Call], Value]:
    """A handler for two operands; `first` builds the layer for `value ∘ constant`, `second` for `constant ∘ value`."""

    def handler(call: Call) -> Value:
        left, right = (call.inputs[index] if index < len(call.inputs) else None for index in (0, 1))
        if isinstance(left, Value) and isinstance(right, Value):
            return _two_values(call, layer(), left, right)
        if isinstance(left, Value) and isinstance(right, np.ndarray) and first:
            return _with_constant(call, left, right, first)
        if isinstance(right, Value) and isinstance(left, np.ndarray) and second:
            return _with_constant(call, right, left, second)
        raise call.unknown("it has a constant on this side")

    return handler


def variadic(
    layer: type[nn.Module], bound: Callable[[float], nn.Module | None] | None = None
) -> Callable[[Call], Value]:
    """A handler for Sum, Max and Min of any number of values; `bound` builds the layer for a single number."""

    def handler(call: Call) -> Value:
        values = [value for value in call.inputs if isinstance(value, Value)]
        numbers = [value for value in call.inputs if isinstance(value, np.ndarray)]
        result = values[0]
        for other in values[1:]:
            result = _two_values(call, layer(), result, other)
        for number in numbers:
            if number.size != 1 or bound is None:
                raise call.unknown("one of its inputs is a constant of several numbers")
            limit = bound(float(number.reshape(-1)[0]))
            result = call.on(result, limit) if limit else result
        return result

    return handler


def _two_values(call: Call, layer: nn.Module, left: Value, right: Value) -> Value:
    """Emit a layer on two values in the dimension order of the larger; the smaller is brought to its rank and order."""
    is_left = _weight(left) >= _weight(right)
    larger, smaller = (left, right) if is_left else (right, left)
    if smaller.rank < larger.rank:
        flat = call.builder.ordered(call.node, smaller, tuple(range(smaller.rank)))
        shape = (1,) * (larger.rank - smaller.rank) + smaller.shape
        smaller = plain(call.emit(ops.Reshape(shape, channels_last=False), flat.node, suffix="broadcast"))
    smaller = call.builder.ordered(call.node, smaller, larger.order)
    nodes = (larger.node, smaller.node) if is_left else (smaller.node, larger.node)
    return Value(call.emit(layer, *nodes), larger.order)


def _weight(value: Value) -> tuple[int, int]:
    return value.rank, int(np.prod(value.shape))


def _with_constant(call: Call, value: Value, constant: Array, build: Callable[[Tensor], nn.Module]) -> Value:
    if constant.dtype.kind != "f":
        raise call.unknown("it computes with whole numbers")
    return call.on(value, build(_parameter_or_number(stored(call, value, constant))))


def _parameter_or_number(values: Array) -> Tensor:
    """A single number stays fixed; one number per channel or position is a trainable weight."""
    return torch.tensor(float(values.reshape(-1)[0])) if values.size == 1 else parameter(values)


def stored(call: Call, value: Value, constant: Array) -> Array:
    """A constant that broadcasts against `value`: in the order in which `value` is stored, without the batch."""
    if constant.size == 1:
        return constant.reshape(())
    if constant.ndim > value.rank:
        raise call.unknown(f"its constant of shape {constant.shape} has more dimensions than the other input")
    full = constant.reshape((1,) * (value.rank - constant.ndim) + constant.shape)
    result = full.transpose([value.order.index(dim) for dim in range(value.rank)])
    if result.shape[0] != 1:
        raise call.unknown(f"its constant of shape {constant.shape} differs along the batch")
    one: Array = result[0]
    return one


def minus(constant: Tensor) -> nn.Module:
    """x - c."""
    return ops.Affine(shift=_like(constant, -constant))


def from_constant(constant: Tensor) -> nn.Module:
    """c - x."""
    return ops.Affine(torch.tensor(-1.0), constant)


def over(constant: Tensor) -> nn.Module:
    """x / c."""
    return ops.Affine(_like(constant, 1 / constant))


def divide(call: Call) -> Value:
    """x / y, x / c, or c / x."""
    above, below = call.inputs[:2]
    if isinstance(above, np.ndarray) and isinstance(below, Value):
        return _with_constant(call, call.on(below, ops.Unary("reciprocal"), suffix="reciprocal"), above, ops.Affine)
    return broadcasting(ops.Divide, over)(call)


def _like(constant: Tensor, value: Tensor) -> Tensor:
    return nn.Parameter(value.detach()) if isinstance(constant, nn.Parameter) else value


def power(call: Call) -> Value:
    exponent = call.constant(1)
    number = float(exponent.reshape(-1)[0]) if exponent is not None and exponent.size == 1 else float("nan")
    if number == 1:
        return call.value()
    if number == 3:
        square = call.on(call.value(), ops.Unary("square"), suffix="square")
        return Value(call.emit(ops.Multiply(), square.node, call.value().node), square.order)
    if number not in ops.Unary.POWERS:
        raise call.unknown("its exponent is not 3, 2, 1/2 or -1/2")
    return call.on(call.value(), ops.Unary(ops.Unary.POWERS[number]))


def reciprocal(call: Call) -> Value:
    """1 / x; 1 / √x is one function."""
    value = call.value()
    root = call.builder.layer(value.node)
    if isinstance(root, ops.Unary) and root.function == "sqrt":
        return Value(call.emit(ops.Unary("rsqrt"), value.node.all_input_nodes[0]), value.order)
    return call.on(value, ops.Unary("reciprocal"))


def instance_norm(call: Call) -> Value:
    """Normalises every channel of every image by its own mean and variance."""
    value, scale, shift = call.plain(), call.constant(1), call.constant(2)
    if value.rank < 3 or scale is None or shift is None or scale.size != value.shape[1] or shift.size != scale.size:
        raise call.unknown("it does not scale every channel by a constant")
    shape = (-1,) + (1,) * (value.rank - 2)
    if bool((scale == 1).all()) and not shift.any():  # exporters write a norm without scale and shift like this
        return plain(_normalised(call, value, tuple(range(2, value.rank)), suffix=""))
    normal = _normalised(call, value, tuple(range(2, value.rank)))
    return plain(call.emit(ops.Affine(parameter(scale, shape), parameter(shift, shape)), normal))


def layer_norm(call: Call) -> Value:
    """Normalises over the dimensions from `axis` on."""
    return _norm_from_axis(call, call.constant(1), call.constant(2), centred=True)


def rms_norm(call: Call) -> Value:
    """As `layer_norm`, without the mean and the shift."""
    return _norm_from_axis(call, call.constant(1), None, centred=False)


def _norm_from_axis(call: Call, scale: Array | None, shift: Array | None, centred: bool) -> Value:
    value = call.value()
    axis = int(call.attribute("axis", -1)) % value.rank
    if axis == 0:
        raise call.unknown("it runs over the batch")
    normal = Value(_normalised(call, value, tuple(sorted(value.order[axis:])), centred=centred), value.order)
    if scale is None and shift is None:
        return normal
    if any(given is not None and given.dtype.kind != "f" for given in (scale, shift)):
        raise call.unknown("it computes with whole numbers")
    given = [None if each is None else _parameter_or_number(stored(call, value, each)) for each in (scale, shift)]
    return call.on(normal, ops.Affine(*given), suffix="affine")


def group_norm(call: Call) -> Value:
    """Normalises each group of channels of every image by its own mean and variance."""
    value, scale, shift = call.plain(), call.constant(1), call.constant(2)
    groups, channels = int(call.attribute("num_groups", 0)), value.shape[1]
    if value.rank < 3 or scale is None or shift is None or groups < 1 or channels % groups:
        raise call.unknown("it does not scale groups of channels by constants")
    each = [np.repeat(given, channels // groups) if given.size == groups else given for given in (scale, shift)]
    if any(given.size != channels for given in each):
        raise call.unknown("its constants have neither one value per channel nor one per group")
    normal = _normalised(call, value, tuple(range(1, value.rank)), groups)
    shape = (-1,) + (1,) * (value.rank - 2)
    return plain(call.emit(ops.Affine(*(parameter(given, shape) for given in each)), normal))


def _normalised(
    call: Call, value: Value, dims: tuple[int, ...], groups: int = 1, centred: bool = True, suffix: str = "normal"
) -> fx.Node:
    """The normalisation alone; `dims` are dimensions of the stored value."""
    epsilon = float(call.attribute("epsilon", 1e-5))
    return call.emit(ops.Normalise(dims, epsilon, groups, centred), value.node, suffix=suffix)


def is_training(call: Call) -> bool:
    """Whether a batch norm uses the statistics of what it is given: told so, or before opset 14 by further results."""
    return bool(call.attribute("training_mode", 0)) or (call.opset < 14 and any(call.node.outputs[1:]))


def batch_norm(call: Call) -> Value:
    value = call.plain()
    if is_training(call):
        call.builder.note("a batch norm uses the statistics of each image: the file was exported in training mode")
        raise call.unknown("it is in training mode")
    vectors = [call.constant(index) for index in (1, 2, 3, 4)]
    scale, shift, mean, variance = (vector for vector in vectors if vector is not None)
    epsilon = float(call.attribute("epsilon", 1e-5))
    channels = value.shape[1]
    if any(vector is None or vector.shape != (channels,) for vector in vectors):
        raise call.unknown("it does not normalise with one stored mean and variance per channel")
    if value.rank != 4:
        gain = scale / np.sqrt(variance + np.float32(epsilon))
        shape = (channels,) + (1,) * (value.rank - 2)
        return call.on(value, ops.Affine(parameter(gain, shape), parameter(shift - mean * gain, shape)))
    layer = nn.BatchNorm2d(channels, epsilon)
    layer.weight, layer.bias = parameter(scale), parameter(shift)
    layer.running_mean, layer.running_var = parameter(mean).detach(), parameter(variance).detach()
    return plain(call.emit(layer, value.node, key=call.key()))
