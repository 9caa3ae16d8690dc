"""Pooling and reductions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from slimseg.frontends.tflite.layout import dropped
from slimseg.frontends.tflite.value import NHWC, Call, Value, pad
from slimseg.graph import ops
from slimseg.graph.shapes import same_padding

_SAME = 0
_LOWEST = float("-inf")


def max_pool(call: Call) -> Value:
    return _pool(call, maximum=True)


def average_pool(call: Call) -> Value:
    source = call.value()
    kernel = (call.option("filterHeight"), call.option("filterWidth"))
    if call.option("padding") != _SAME and source.node_shape[2:] == kernel:
        return call.activated(lambda name: call.result(nn.AdaptiveAvgPool2d((1, 1)), source, name=name))
    return _pool(call, maximum=False)


def _pool(call: Call, maximum: bool) -> Value:
    """A max or average pooling. SAME may pad one pixel more at the end, for which torch has ceil_mode."""
    source = call.value()
    if source.rank != 4:
        raise call.unknown(f"pools a tensor of {source.rank} dimensions")
    kernel = (call.option("filterHeight"), call.option("filterWidth"))
    stride = (call.option("strideH"), call.option("strideW"))
    same = call.option("padding") == _SAME
    sides = zip(source.node_shape[2:], kernel, stride, strict=True)
    (top, bottom), (left, right) = (same_padding(*side) if same else (0, 0) for side in sides)

    def pooled(name: str) -> Value:
        if not maximum:
            layer: nn.Module = nn.AvgPool2d(kernel, stride, (top, left), same, count_include_pad=False)
            return call.result(layer, source, name=name)
        if 2 * top > kernel[0] or 2 * left > kernel[1]:  # torch's own padding may not be this large
            padded = pad(call, source, (left, right, top, bottom), _LOWEST)
            return call.result(nn.MaxPool2d(kernel, stride), padded, name=name)
        layer = nn.MaxPool2d(kernel, stride, (top, left), ceil_mode=same)
        return call.result(layer, source, name=name)

    return call.activated(pooled)


def reduction(kind: ops.Reduction) -> Callable[[Call], Value]:
    """A handler for MEAN, SUM, REDUCE_MAX or REDUCE_MIN over constant axes."""

    def handler(call: Call) -> Value:
        source = call.in_any_order()
        axes = sorted({axis % source.rank for axis in call.integers(1)})
        dims = tuple(source.order[axis] for axis in axes)
        keeps = bool(call.option("keepDims"))
        flattens = not keeps and source.rank == 4
        name = f"{call.name}_kept" if flattens else call.name
        kept = call.result(_reduced(kind, dims, keeps or flattens, source), source, name=name)
        if not flattens:
            return kept
        # A reduced map loses a dimension; the remaining ones are in the file's order.
        return dropped(call, kept, axes) if axes else kept

    return handler


def _reduced(kind: ops.Reduction, dims: tuple[int, ...], keepdim: bool, source: Value) -> nn.Module:
    spatial: Any = source.rank == 4 and source.order == NHWC and sorted(dims) == [2, 3]
    return nn.AdaptiveAvgPool2d((1, 1)) if kind == "mean" and spatial and keepdim else ops.Reduce(kind, dims, keepdim)
