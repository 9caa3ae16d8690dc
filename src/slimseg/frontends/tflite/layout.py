"""Operators that move values: concatenation, pads, slices, resizes, reshapes, transposes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import nn

from slimseg.frontends.tflite.value import NCHW, NHWC, Call, Value, natural
from slimseg.graph import ops

_MOST_REPEATS = 16


def alias(call: Call) -> Value:
    """An operator that changes how numbers are stored, not their values."""
    return call.raw()


def concatenate(call: Call) -> Value:
    first = next((value for value in call.inputs if isinstance(value, Value)), None)
    if first is None:
        raise call.damaged("joins constants only")
    order = first.order if first.space is None else natural(first.rank)
    sources = [_joined(call, position, order) for position in range(len(call.inputs))]
    rank = len(order)
    if any(source.rank != rank for source in sources):
        raise call.damaged("joins tensors of different ranks")
    axis = int(call.option("axis")) % rank
    return call.activated(lambda name: call.result(ops.Concat(sources[0].order[axis]), *sources, name=name))


def _joined(call: Call, position: int, order: tuple[int, ...]) -> Value:
    """An input of a concatenation; a constant one, as a class token, is a value, too."""
    if not call.is_value(position):
        constant = call.constant(position)
        if constant.ndim != len(order):
            raise call.damaged("joins tensors of different ranks")
        turned = constant.transpose([order.index(dim) for dim in range(len(order))])
        return call.always(turned, order, f"{call.name}_constant_{position}")
    value = call.in_any_order(position)
    return call.ordered(value, order) if value.rank == len(order) else value


def pad(call: Call) -> Value:
    source, table = call.value(), call.constant(1)
    fill = call.optional_constant(2)
    amounts = [(int(before), int(after)) for before, after in table.reshape(-1, 2)]
    if source.rank != 4 or len(amounts) != 4 or any(amounts[0]):
        raise call.unknown(f"pads a tensor of {source.rank} dimensions, or the batch")
    _, (top, bottom), (left, right), channels = amounts
    value = 0.0 if fill is None else float(fill.reshape(-1)[0])
    return call.result(ops.Pad((left, right, top, bottom), value, channels), source)


def resize(mode: ops.ResizeMode) -> Callable[[Call], Value]:
    def handler(call: Call) -> Value:
        source = call.value()
        height, width = call.integers(1)
        corners, half = bool(call.option("alignCorners")), bool(call.option("halfPixelCenters"))
        coordinates: ops.Coordinates = "align_corners" if corners else "half_pixel" if half else "asymmetric"
        own: ops.ResizeMode = "nearest-exact" if mode == "nearest" and half and not corners else mode
        return call.result(ops.Resize((height, width), own, coordinates), source)

    return handler


def reshape(call: Call) -> Value:
    """RESHAPE, SQUEEZE or EXPAND_DIMS, to the shape that the file states for the result."""
    source, shape = call.raw(), call.output_shape
    if source.space is not None:
        raise call.unknown("stands between SPACE_TO_BATCH and BATCH_TO_SPACE, where it has no counterpart")
    planar = source.order == NCHW and source.rank == 4
    if not planar:
        source = call.value()
    if planar:  # the values of a transposed (NCHW) map are arranged in torch's own order
        if source.node_shape == shape:
            return source
        return call.result(ops.Reshape(shape, channels_last=False), source)
    if tuple(source.node_shape[dim] for dim in source.order) == shape:
        return source
    wanted = tuple(shape[natural(len(shape)).index(dim)] for dim in range(len(shape)))
    return call.result(ops.Reshape(wanted), source, like=Value(source.node, natural(len(shape))))


def transpose(call: Call) -> Value:
    """Changes only the order that is noted for a map; a tensor of another rank is transposed by a layer."""
    source, permutation = call.raw(), call.integers(1)
    if sorted(permutation) != list(range(source.rank)):
        raise call.damaged(f"has the order {permutation} for a tensor of {source.rank} dimensions")
    if source.rank == 4:
        return replace(source, order=tuple(source.order[axis] for axis in permutation))
    return call.result(ops.Transpose(tuple(permutation)), source)


def slice_(call: Call) -> Value:
    """SLICE with begin and size, where -1 means the whole rest."""
    source = call.in_any_order()
    lengths = _lengths(source)
    begin, size = call.integers(1), call.integers(2)
    if not len(begin) == len(size) == source.rank:
        raise call.damaged("has a begin or a size of another rank than its input")
    ends = [length if count == -1 else start + count for start, count, length in zip(begin, size, lengths, strict=True)]
    return _cut(call, source, list(zip(begin, ends, [1] * source.rank, strict=True)), call.name)


def strided_slice(call: Call) -> Value:
    source = call.in_any_order()
    if call.option("ellipsisMask") or call.option("newAxisMask"):
        raise call.unknown("adds dimensions or has an ellipsis")
    begins, ends, strides = call.integers(1), call.integers(2), call.integers(3)
    if not len(begins) == len(ends) == len(strides) <= source.rank or min(strides, default=1) < 1:
        raise call.unknown("steps backwards")
    parts = []
    shrunk = call.option("shrinkAxisMask")
    for axis, length in enumerate(_lengths(source)):
        if axis >= len(begins):
            parts.append((0, length, 1))
            continue
        begin, end = (number + length if number < 0 else number for number in (begins[axis], ends[axis]))
        begin = 0 if call.option("beginMask") >> axis & 1 else begin
        end = length if call.option("endMask") >> axis & 1 else min(end, length)
        parts.append((begin, begin + 1 if shrunk >> axis & 1 else end, strides[axis]))
    if not shrunk:
        return _cut(call, source, parts, call.name)
    kept = _cut(call, source, parts, f"{call.name}_kept")
    return dropped(call, kept, [axis for axis in range(kept.rank) if shrunk >> axis & 1])


def dropped(call: Call, value: Value, axes: Sequence[int], name: str = "") -> Value:
    """A tensor without some of its dimensions, which have length 1; the others stay in their order."""
    order = [dim for axis, dim in enumerate(value.order) if axis not in axes]
    if not order:
        return call.result(ops.Reshape((1,)), value, name=name)
    kept = sorted(order)
    shape = tuple(value.node_shape[dim] for dim in kept)
    made = call.result(ops.Reshape(shape, channels_last=False), value, name=name)
    return Value(made.node, tuple(kept.index(dim) for dim in order))


def _lengths(value: Value) -> list[int]:
    """The tensor's shape in the file."""
    return [value.node_shape[dim] for dim in value.order]


def _cut(call: Call, source: Value, parts: Sequence[tuple[int, int, int]], name: str) -> Value:
    """[begin:end:step] on every axis: one crop if several axes of a map are cut, else one slice per cut axis."""
    lengths = _lengths(source)
    cuts = [
        (axis, part) for axis, (part, length) in enumerate(zip(parts, lengths, strict=True)) if part != (0, length, 1)
    ]
    if not all(0 <= begin < end <= lengths[axis] for axis, (begin, end, _) in cuts):
        raise call.damaged(f"cuts {[part for _, part in cuts]} from {tuple(lengths)}")
    if source.order == NHWC and len(cuts) > 1 and all(step == 1 for _, (_, _, step) in cuts):
        (top, bottom), (left, right), channels = (
            (-begin, end - length) for (begin, end, _), length in zip(parts[1:], lengths[1:], strict=True)
        )
        return call.result(ops.Pad((left, right, top, bottom), 0.0, channels), source, name=name)
    for number, (axis, part) in enumerate(cuts):
        last = number == len(cuts) - 1
        layer = ops.Slice(source.order[axis], *part)
        source = call.result(layer, source, name=name if last else f"{name}_{number}")
    return source


def split(call: Call) -> tuple[Value, ...]:
    """SPLIT with inputs (axis, input) or SPLIT_V with (input, sizes, axis)."""
    position, where = (1, 0) if call.op == "SPLIT" else (0, 2)
    source = call.in_any_order(position)
    axis = call.integers(where)[0] % source.rank
    results, start = [], 0
    for number, shape in enumerate(call.output_shapes):
        part = [(0, length, 1) for length in _lengths(source)]
        part[axis] = (start, start + shape[axis], 1)
        start += shape[axis]
        results.append(_cut(call, source, part, f"{call.name}_{number}"))
    return tuple(results)


def unpack(call: Call) -> tuple[Value, ...]:
    source = call.in_any_order()
    axis = int(call.option("axis")) % source.rank
    results = []
    for number in range(len(call.output_shapes)):
        part = [(0, length, 1) for length in _lengths(source)]
        part[axis] = (number, number + 1, 1)
        kept = _cut(call, source, part, f"{call.name}_{number}_kept")
        results.append(dropped(call, kept, [axis], f"{call.name}_{number}"))
    return tuple(results)


def pack(call: Call) -> Value:
    """PACK: each tensor gets a dimension of length 1, along which they are joined."""
    rank = len(call.output_shape)
    axis = int(call.option("axis")) % rank
    if any(not call.is_value(position) for position in range(len(call.inputs))):
        raise call.unknown("stacks constants with activations")
    shape = [length if place != axis else 1 for place, length in enumerate(call.output_shape)]
    order = tuple(range(rank))
    parts = []
    for position in range(len(call.inputs)):
        value = call.in_any_order(position)
        plain = call.ordered(value, tuple(range(value.rank)))
        reshape = ops.Reshape(tuple(shape), channels_last=False)
        parts.append(Value(call.result(reshape, plain, name=f"{call.name}_{position}").node, order))
    return call.result(ops.Concat(axis), *parts)


def gather(call: Call) -> Value:
    """GATHER of one index, or of consecutive ones, along one axis: a slice."""
    source, indices = call.in_any_order(), call.integers(1)
    axis = int(call.option("axis") or 0) % source.rank
    picks = call.constant(1).ndim == 0
    if not indices or indices != list(range(indices[0], indices[0] + len(indices))) or indices[0] < 0:
        raise call.unknown("does not select neighbouring values in order")
    part = [(0, length, 1) for length in _lengths(source)]
    part[axis] = (indices[0], indices[0] + len(indices), 1)
    if picks:
        return dropped(call, _cut(call, source, part, f"{call.name}_kept"), [axis])
    return _cut(call, source, part, call.name)


def spread(call: Call) -> Value:
    """BROADCAST_TO of one pixel over a map, which is its nearest resize."""
    source, (_, height, width, channels) = call.value(), (*call.output_shape, 0, 0, 0, 0)[:4]
    if source.order != NHWC or source.node_shape[1:] != (channels, 1, 1):
        raise call.unknown("repeats more than one pixel")
    return call.result(ops.Resize((height, width), "nearest", "asymmetric"), source)


def tile(call: Call) -> Value:
    """TILE: the tensor repeated along each axis."""
    source, repeats = call.value(), call.integers(1)
    if len(repeats) != source.rank or not all(1 <= count <= _MOST_REPEATS for count in repeats):
        if source.rank == 4:
            return spread(call)
        raise call.unknown(f"repeats {repeats} times")
    if source.order == NHWC and source.node_shape[2:] == (1, 1) and repeats[3] == 1:
        return spread(call)
    axes = [axis for axis, count in enumerate(repeats) if count > 1]
    for number, axis in enumerate(axes):
        copies = [source] * repeats[axis]
        name = call.name if number == len(axes) - 1 else f"{call.name}_{number}"
        source = call.result(ops.Concat(source.order[axis]), *copies, name=name)
    return source


def blocks(layer: Callable[[int], nn.Module]) -> Callable[[Call], Value]:
    """A handler for DEPTH_TO_SPACE or SPACE_TO_DEPTH."""
    return lambda call: call.result(layer(int(call.option("blockSize"))), call.value())


def cast(call: Call) -> Value:
    """A cast matters only after an argmax, where it makes float32 of integers; elsewhere it is dropped."""
    source = call.raw()
    made_by = source.node.meta.get("integer", False)
    return call.result(ops.Cast("float32"), source) if made_by else source
