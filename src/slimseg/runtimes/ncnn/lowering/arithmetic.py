"""Arithmetic on one or two tensors."""

from __future__ import annotations

from itertools import groupby

from torch import Tensor, nn

from slimseg.graph import ops
from slimseg.runtimes.lowering import spelling, weights
from slimseg.runtimes.ncnn.lowering.step import MOST_DIMS, Lowerings, Shape, Step, as_shape, constant, unary, volume
from slimseg.runtimes.ncnn.net import Net, Param, Weight

BINARY: dict[type[nn.Module], int] = {
    ops.Add: 0,
    ops.Subtract: 1,
    ops.Multiply: 2,
    ops.Divide: 3,
    ops.Maximum: 4,
    ops.Minimum: 5,
}
_UNARY = {
    "abs": 0,
    "neg": 1,
    "floor": 2,
    "square": 4,
    "sqrt": 5,
    "rsqrt": 6,
    "exp": 7,
    "log": 8,
    "sin": 9,
    "cos": 10,
    "reciprocal": 15,
}


def binary(net: Net, step: Step, layer: nn.Module) -> int:
    """Arithmetic on two tensors with broadcasting: ncnn has it for equal ranks, and for (C,) with (C, H, W)."""
    first, second = step.inputs
    if net.shape(first) == net.shape(second):
        shape = net.shape(first)
    elif len(step.shape) > MOST_DIMS:
        shapes = _joined(*(_padded(own, len(step.shape)) for own in step.input_shapes))
        first, second = (
            as_shape(net, blob, own, f"{step.name}_joined") for blob, own in zip(step.inputs, shapes, strict=True)
        )
        shape = tuple(map(max, *shapes))
    else:
        shape = step.shape
        ranks = len(net.shape(first)), len(net.shape(second))
        if sorted(ranks) != [1, 3] or not _one_per_channel(net, step):
            first, second = (_aligned(net, step, number) for number in range(2))
    return net.add("BinaryOp", step.name, (first, second), shape, {0: BINARY[type(layer)]})


def _one_per_channel(net: Net, step: Step) -> bool:
    """Whether one input is flat from global pooling, (C,) for (C, 1, 1), and the other is a map of C channels."""
    flat, full = sorted(range(2), key=lambda number: len(net.shape(step.inputs[number])))
    channels = net.shape(step.inputs[full])[0]
    return step.input_shapes[flat] == (channels, 1, 1) and step.shape == net.shape(step.inputs[full])


def _aligned(net: Net, step: Step, number: int) -> int:
    """An input reshaped to as many dimensions as the result, aligned at the last one as in torch."""
    shape = _padded(step.input_shapes[number], len(step.shape))
    return as_shape(net, step.inputs[number], shape, f"{step.name}_aligned")


def _padded(shape: Shape, rank: int) -> Shape:
    return (1,) * (rank - len(shape)) + shape


def _joined(first: Shape, second: Shape) -> tuple[Shape, Shape]:
    """Both shapes with neighbouring dimensions joined along which the same one, or none, is broadcast."""
    lengths = [pair for pair in zip(first, second, strict=True) if pair != (1, 1)]
    groups = groupby(lengths, key=lambda pair: (pair[0] == 1, pair[1] == 1))
    rows = [tuple(volume(side) for side in zip(*pairs, strict=True)) for _, pairs in groups]
    return tuple(row[0] for row in rows), tuple(row[1] for row in rows)


def function(net: Net, step: Step, layer: ops.Unary) -> int:
    if layer.function == "sign":
        return _sign(net, step)
    return unary(net, step, "UnaryOp", {0: spelling(_UNARY, layer.function, step.name, "ncnn")})


def _sign(net: Net, step: Step) -> int:
    """(x > 0) - (-x > 0): UnaryOp has no sign."""
    (source,), shape = step.inputs, net.shape(step.inputs[0])
    opposite = net.add("UnaryOp", f"{step.name}_opposite", (source,), shape, {0: _UNARY["neg"]})
    sides = [
        net.add("Threshold", f"{step.name}_{side}", (blob,), shape, {0: 0.0})
        for side, blob in (("positive", source), ("negative", opposite))
    ]
    return net.add("BinaryOp", step.name, sides, shape, {0: BINARY[ops.Subtract]})


def affine(net: Net, step: Step, layer: ops.Affine) -> int:
    """Scale or Bias for values per channel, BinaryOp with a number for a single value, else with a constant blob."""
    scale, shift = layer.scale, layer.shift
    blob = step.inputs[0]
    if step.size[0] > 1:
        return _with_number(net, step, layer) if _is_one_number(layer) else _with_blobs(net, step, layer)
    channels = net.shape(blob)[0]
    per_channel = [_per_channel(value, step.shape) for value in (scale, shift) if value is not None]
    if step.input_shapes[0] == step.shape and all(value is not None for value in per_channel):
        if _is_one_number(layer):
            return _with_number(net, step, layer)
        values = [Weight(weights(value.expand(channels))) for value in per_channel if value is not None]
        if scale is None:
            return net.add("Bias", step.name, (blob,), net.shape(blob), {0: channels}, values)
        params: dict[int, Param] = {0: channels, 1: int(shift is not None)}
        return net.add("Scale", step.name, (blob,), net.shape(blob), params, values)
    return _with_blobs(net, step, layer)


def _is_one_number(layer: ops.Affine) -> bool:
    given = [value for value in (layer.scale, layer.shift) if value is not None]
    return len(given) == 1 and given[0].numel() == 1


def _per_channel(value: Tensor, shape: Shape) -> Tensor | None:
    """A constant as (1,) or (channels,), or None if it varies over other dimensions; channels come first in `shape`."""
    if value.numel() == 1:
        return value.reshape(1)
    full = (1,) * (len(shape) - value.ndim) + tuple(value.shape)
    return value.reshape(-1) if full == (shape[0], *(1 for _ in shape[1:])) else None


def _with_number(net: Net, step: Step, layer: ops.Affine) -> int:
    value, kind = (layer.shift, ops.Add) if layer.scale is None else (layer.scale, ops.Multiply)
    assert value is not None
    return unary(net, step, "BinaryOp", {0: BINARY[kind], 1: 1, 2: float(value.reshape(()))})


def _with_blobs(net: Net, step: Step, layer: ops.Affine) -> int:
    source = as_shape(net, step.inputs[0], step.input_shapes[0], f"{step.name}_map")
    parts = [("scale", ops.Multiply, layer.scale), ("shift", ops.Add, layer.shift)]
    given = [(name, kind, value) for name, kind, value in parts if value is not None]
    for name, kind, value in given:
        rank = len(step.shape)
        shape = (1,) * (rank - value.ndim) + tuple(value.shape)[max(0, value.ndim - rank) :]
        other = constant(net, f"{step.name}_{name}", weights(value.reshape(shape)))
        full = tuple(max(pair) for pair in zip(net.shape(source), shape, strict=True))
        last = name == given[-1][0]
        source = net.add(
            "BinaryOp", step.name if last else f"{step.name}_scaled", (source, other), full, {0: BINARY[kind]}
        )
    return source


LOWERINGS: Lowerings = {
    ops.Unary: function,
    ops.Add: binary,
    ops.Subtract: binary,
    ops.Multiply: binary,
    ops.Divide: binary,
    ops.Maximum: binary,
    ops.Minimum: binary,
    ops.Affine: affine,
}
