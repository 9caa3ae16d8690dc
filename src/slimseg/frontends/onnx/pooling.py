"""Pooling and reductions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torch import nn

from slimseg.frontends.onnx.builder import Call, Value, plain
from slimseg.frontends.onnx.constants import axes_of
from slimseg.frontends.onnx.convolution import Window, window
from slimseg.graph import ops, propagation

LOWEST = float(np.finfo(np.float32).min)


def max_pool(call: Call) -> Value:
    value, moves = _pool_window(call)
    ceil = bool(call.attribute("ceil_mode", 0))

    def build(padding: tuple[int, int], ceil: bool) -> nn.Module:
        return nn.MaxPool2d(moves.kernel, moves.stride, padding, moves.dilation, ceil_mode=ceil)

    layer = _torch_pool(value, moves, ceil, build)
    if layer is not None:
        return plain(call.emit(layer, value.node))
    (top, bottom), (left, right) = moves.pads
    padded = call.emit(ops.Pad((left, right, top, bottom), LOWEST), value.node, suffix="pad")
    return plain(call.emit(build((0, 0), ceil), padded))


def average_pool(call: Call) -> Value:
    value, moves = _pool_window(call)
    ceil, counted = bool(call.attribute("ceil_mode", 0)), bool(call.attribute("count_include_pad", 0))
    if moves.dilation != (1, 1):
        raise call.unknown("it is dilated")

    def build(padding: tuple[int, int], ceil: bool) -> nn.Module:
        return nn.AvgPool2d(moves.kernel, moves.stride, padding, ceil, counted)

    layer = None if counted and not moves.is_symmetric else _torch_pool(value, moves, ceil, build)
    if layer is not None:
        return plain(call.emit(layer, value.node))
    if not counted or ceil:
        raise call.unknown("its padding is not counted, and is not symmetric")
    (top, bottom), (left, right) = moves.pads
    padded = call.emit(ops.Pad((left, right, top, bottom)), value.node, suffix="pad")
    return plain(call.emit(build((0, 0), ceil), padded))


def _pool_window(call: Call) -> tuple[Value, Window]:
    value = call.plain()
    if value.rank != 4:
        raise call.unknown("it is not two-dimensional")
    return value, window(call, call.attribute("kernel_shape", ()), value.shape[2:])


def _torch_pool(
    value: Value, moves: Window, ceil: bool, build: Callable[[tuple[int, int], bool], nn.Module]
) -> nn.Module | None:
    """torch's layer with the same windows, or None. torch's ceil_mode stands for pads wider after than before."""
    if any(2 * before > taps for (before, _), taps in zip(moves.pads, moves.kernel, strict=True)):
        return None
    if moves.is_symmetric:
        return build(moves.padding, ceil)
    counts = []
    for axis, (before, after) in enumerate(moves.pads):
        reach = (moves.kernel[axis] - 1) * moves.dilation[axis] + 1
        room = value.shape[2 + axis] + before + after - reach
        counts.append((-(-room // moves.stride[axis]) if ceil else room // moves.stride[axis]) + 1)
    layer = build(moves.padding, True)
    try:
        same = propagation.shape_of(layer, [value.shape])[2:] == tuple(counts)
    except ValueError:
        return None
    return layer if same else None


def global_average(call: Call) -> Value:
    value = call.plain()
    if value.rank != 4:
        raise call.unknown("it is not two-dimensional")
    return plain(call.emit(nn.AdaptiveAvgPool2d((1, 1)), value.node))


def global_maximum(call: Call) -> Value:
    value = call.plain()
    if value.rank != 4:
        raise call.unknown("it is not two-dimensional")
    return plain(call.emit(ops.Reduce("max", (2, 3), True), value.node))


def reduction(kind: ops.Reduction) -> Callable[[Call], Value]:
    """A handler for ReduceMean, ReduceSum, ReduceMax or ReduceMin."""

    def handler(call: Call) -> Value:
        value, keep = call.value(), bool(call.attribute("keepdims", 1))
        axes = axes_of(call.node, call.constants())
        if not axes:
            if call.attribute("noop_with_empty_axes", 0):
                return value
            axes = list(range(value.rank))
        dims = tuple(sorted({value.order[axis] for axis in axes}))
        if dims == tuple(range(value.rank)) and value.stored[0] == 1:
            # Over all values of an image. The single number keeps its dimensions, as it is read by arithmetic.
            return call.on(value, ops.Reduce(kind, dims[1:], True))
        if 0 in dims:
            raise call.unknown("it reduces over the batch")
        if value.rank == 4 and dims == (2, 3) and kind == "mean":
            pooled = call.on(value, nn.AdaptiveAvgPool2d((1, 1)), suffix="" if keep else "pool")
            return pooled if keep else _dropped(call, pooled, axes)
        if keep:
            return call.on(value, ops.Reduce(kind, dims, True))
        node = call.emit(ops.Reduce(kind, dims, False), value.node)
        left = [dim for dim in value.order if dim not in dims]
        return Value(node, tuple(sorted(left).index(dim) for dim in left))

    return handler


def _dropped(call: Call, value: Value, axes: list[int]) -> Value:
    """Reshape (1, C, 1, 1) to (1, C)."""
    gone = {axis % value.rank for axis in axes}
    shape = tuple(length for axis, length in enumerate(value.shape) if axis not in gone)
    return plain(call.emit(ops.Reshape(shape), value.node))


def arg_max(call: Call) -> Value:
    value = call.value()
    axis = int(call.attribute("axis", 0))
    if value.rank != 4 or value.order[axis] != 1 or call.attribute("select_last_index", 0):
        raise call.unknown("it does not run over channels")
    node = call.emit(ops.ArgMax(), value.node)
    left = [dim for dim in value.order if dim != 1]
    result = Value(node, tuple(sorted(left).index(dim) for dim in left))
    if not call.attribute("keepdims", 1):
        return result
    shape = value.stored
    kept = call.emit(ops.Reshape((shape[0], 1, *shape[2:])), node, suffix="keep")
    return Value(kept, value.order)
