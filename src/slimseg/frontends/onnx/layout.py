"""Operators that move values without computing: reshapes, transposes, slices, pads, concatenations."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from onnx import TensorProto
from torch import fx, nn

from slimseg.frontends.aten.decompositions import comparisons, positions
from slimseg.frontends.onnx import constants
from slimseg.frontends.onnx.builder import NHWC, Call, Value, plain
from slimseg.frontends.onnx.in_torch import in_torch, on_stored
from slimseg.graph import ops
from slimseg.graph.orders import TO_NCHW

MOST_REPEATED = 8  # rows that an edge or reflecting pad copies; more would make a graph of slices


def alias(call: Call) -> Value:
    return call.value()


def reshape(call: Call) -> Value:
    value = call.value()
    wanted = call.attribute("shape") if "shape" in call.node.attributes else call.constant(1)
    if wanted is None:
        raise call.unknown("its shape is missing")
    return reshaped(
        call, value, constants.resolved_shape(value.shape, list(wanted), bool(call.attribute("allowzero", 0)))
    )


def flatten(call: Call) -> Value:
    value = call.value()
    axis = int(call.attribute("axis", 1))
    axis += value.rank * (axis < 0)
    return reshaped(call, value, (math.prod(value.shape[:axis]), math.prod(value.shape[axis:])))


def squeeze(call: Call) -> Value:
    value = call.value()
    return reshaped(call, value, constants.squeezed_shape(value.shape, constants.axes_of(call.node, call.constants())))


def unsqueeze(call: Call) -> Value:
    value = call.value()
    axes = constants.axes_of(call.node, call.constants()) or []
    return reshaped(call, value, constants.unsqueezed_shape(value.shape, axes))


def reshaped(call: Call, value: Value, shape: tuple[int, ...]) -> Value:
    """The same values in ONNX's order in another shape; reads and stores them as NHWC where that saves a transpose."""
    if shape == value.shape:
        return value
    if value.rank == 4 and value.order == NHWC:
        channels_last = True
    else:
        value = call.builder.ordered(call.node, value, tuple(range(value.rank)))
        flat = value.rank != 4 or value.shape[1] == 1 or math.prod(value.shape[2:]) == 1
        channels_last = flat and (len(shape) != 4 or _is_wanted_nhwc(call))
    if len(shape) != 4 or not channels_last:
        return plain(call.emit(ops.Reshape(shape, channels_last), value.node))
    batch, height, width, channels = shape
    return Value(call.emit(ops.Reshape((batch, channels, height, width)), value.node), NHWC)


def _is_wanted_nhwc(call: Call) -> bool:
    """Whether the result is NHWC: a reading Transpose says so, or the network is NHWC and no reader needs NCHW."""
    readers = call.builder.consumers.get(call.node.outputs[0], [])
    if any(node.op == "Transpose" for node in readers):
        return any(tuple(node.attributes.get("perm", ())) == TO_NCHW for node in readers)
    return call.builder.is_nhwc and not any(node.op in _NCHW_ONLY for node in readers)


_NCHW_ONLY = ("Conv", "ConvTranspose", "BatchNormalization", "MaxPool", "AveragePool", "GlobalAveragePool")


def transpose(call: Call) -> Value:
    value = call.value()
    order = [int(dim) for dim in call.attribute("perm", range(value.rank)[::-1])]
    if sorted(order) != list(range(value.rank)):
        raise call.unknown(f"its order {order} does not fit {value.shape}")
    result = Value(value.node, tuple(value.order[dim] for dim in order))
    readers = call.builder.consumers.get(call.node.outputs[0], [])
    if (value.rank == 4 and result.order in ((0, 1, 2, 3), NHWC)) or all(node.op in _ALONG_ANY for node in readers):
        return result
    return call.builder.ordered(call.node, result, tuple(range(value.rank)))


_ALONG_ANY = ("Softmax", "LogSoftmax", "GatherND")  # exporters move the dimension that these run along to one end


def concat(call: Call) -> Value:
    """Constants among the inputs, as a class token, are values, too."""
    first = next(value for value in call.inputs if isinstance(value, Value))
    values = [
        call.builder.always(call.node, each, call.node.inputs[index])
        if isinstance(each, np.ndarray)
        else call.value(index)
        for index, each in enumerate(call.inputs)
    ]
    axis = int(call.attribute("axis", 1)) % first.rank
    if len({value.rank for value in values}) != 1:
        raise call.unknown("its inputs have different numbers of dimensions")
    if len(values) == 1:
        return values[0]
    order = first.order if first.rank == 4 else tuple(range(first.rank))
    nodes = [call.builder.ordered(call.node, value, order).node for value in values]
    return Value(call.emit(ops.Concat(order[axis]), *nodes), order)


def slice_(call: Call) -> Value:
    value = call.value()
    for axis, wanted in enumerate(constants.slices(call.node, call.constants()[: len(call.inputs)], value.rank)):
        start, stop, step = wanted.indices(value.shape[axis])
        if step < 1 or stop <= start:
            raise call.unknown("it reads backwards, or its result is empty")
        value = part(call, value, axis, start, stop, step)
    return value


def part(call: Call, value: Value, axis: int, start: int, stop: int, step: int = 1, suffix: str = "") -> Value:
    if (start, stop, step) == (0, value.shape[axis], 1):
        return value
    return call.on(value, ops.Slice(value.order[axis], start, stop, step), suffix)


def split(call: Call) -> tuple[Value, ...]:
    value = call.value()
    axis = int(call.attribute("axis", 0)) % value.rank
    parts, start = [], 0
    for number, length in enumerate(constants.split_lengths(call.node, call.constants(), value.shape[axis])):
        parts.append(part(call, value, axis, start, start + length, suffix=str(number)))
        start += length
    return tuple(parts)


def gather(call: Call) -> Value:
    """Constant positions along a dimension, which become slices, or a product with a matrix of zeros and ones."""
    value, index = call.value(), call.constant(1)
    axis = int(call.attribute("axis", 0)) % value.rank
    if index is None or not index.size:
        raise call.unknown("it selects nothing")
    call.builder.work.compute(index.size)
    found = taken(
        call, value, axis, (index.reshape(-1) % value.shape[axis]).tolist(), "" if index.ndim == 1 else "pick"
    )
    if index.ndim == 1:
        return found
    return reshaped(call, found, (*found.shape[:axis], *index.shape, *found.shape[axis + 1 :]))


def taken(call: Call, value: Value, axis: int, places: list[int], suffix: str = "") -> Value:
    """The values at some places along a dimension."""
    if places == list(range(places[0], places[0] + len(places))):
        return part(call, value, axis, places[0], places[-1] + 1, suffix=suffix)
    return on_stored(call, value, lambda _, x: positions.taken(x, value.order[axis], places))


def gather_nd(call: Call) -> Value:
    """Constant positions along each of the first dimensions, as x[rows][:, columns] has them."""
    value, index = call.value(), call.constant(1)
    if index is None or index.ndim != index.shape[-1] + 1 or index.shape[-1] > value.rank or not index.size:
        raise call.unknown("it does not select rows and columns")
    if call.attribute("batch_dims", 0):
        raise call.unknown("it selects other values for each image")
    call.builder.work.compute(index.size)
    for axis in range(index.shape[-1]):
        along = np.moveaxis(index[..., axis], axis, 0).reshape(index.shape[axis], -1) % value.shape[axis]
        if (along != along[:, :1]).any():
            raise call.unknown("it does not select rows and columns")
        value = taken(call, value, axis, along[:, 0].tolist(), str(axis))
    return value


def pad(call: Call) -> Value:
    value = call.value()
    pads = call.attribute("pads", call.attribute("paddings")) if call.opset < 11 else call.constant(1)
    axes = call.constant(3) if call.opset >= 18 else None
    mode, number = call.attribute("mode", "constant"), _pad_value(call)
    if pads is None or mode not in ("constant", "edge", "reflect"):
        raise call.unknown(f"its mode is {mode}")
    dims = list(range(value.rank)) if axes is None else [int(axis) % value.rank for axis in axes]
    amounts = [(0, 0)] * 4
    for dim, before, after in zip(dims, list(pads)[: len(dims)], list(pads)[len(dims) :], strict=True):
        if before or after:
            amounts[value.order[dim]] = (int(before), int(after))
    if not any(map(any, amounts)):
        return value
    if value.rank != 4 or any(amounts[0]):
        raise call.unknown("it does not pad a map")
    return _padded(call, value, amounts, number) if mode == "constant" else _repeated(call, value, amounts, mode)


def _pad_value(call: Call) -> float:
    given = call.constant(2) if call.opset >= 11 else None
    return float(call.attribute("value", 0.0)) if given is None or not given.size else float(given.reshape(-1)[0])


def _padded(call: Call, value: Value, amounts: Sequence[tuple[int, int]], number: float) -> Value:
    """Pads with a constant; if some sides are cropped and others padded, it crops first, as no operator does both."""
    cropped = [(min(before, 0), min(after, 0)) for before, after in amounts]
    grown = [(max(before, 0), max(after, 0)) for before, after in amounts]
    steps = [step for step in (cropped, grown) if any(map(any, step))]
    for step in steps:
        (_, channels, rows, columns) = step
        suffix = "crop" if step is cropped and len(steps) > 1 else ""
        value = call.on(value, ops.Pad((*columns, *rows), number, channels), suffix)
    return value


def _repeated(call: Call, value: Value, amounts: Sequence[tuple[int, int]], mode: str) -> Value:
    """Pads with copies of the first and last row (edge), or of the rows next to them in reverse order (reflect)."""
    for dim, (before, after) in enumerate(amounts):
        last = value.stored[dim] - 1
        if min(before, after) < 0 or max(before, after) > min(
            MOST_REPEATED, last if mode == "reflect" else MOST_REPEATED
        ):
            raise call.unknown(f"its mode is {mode}, and its padding is wider than {MOST_REPEATED} values or the map")
        step = 0 if mode == "edge" else 1
        rows = [
            *(step * row for row in range(before, 0, -1)),
            None,
            *(last - step * row for row in range(1, after + 1)),
        ]
        if len(rows) > 1:
            parts = [
                value.node if row is None else call.emit(ops.Slice(dim, row, row + 1), value.node, suffix="row")
                for row in rows
            ]
            value = Value(call.emit(ops.Concat(dim), *parts, suffix="repeat"), value.order)
    return value


def expand(call: Call) -> Value:
    """Expanding one pixel over a map is a nearest resize of it."""
    value, wanted = call.value(), call.constant(1)
    if wanted is None:
        raise call.unknown("its shape is missing")
    given = [int(length) for length in wanted]
    if call.node.op == "Tile":
        shape = tuple(length * times for length, times in zip(value.shape, given, strict=True))
    else:
        shape = np.broadcast_shapes(value.shape, tuple(given))
    if shape == value.shape:
        return value
    spread = [dim for dim in range(value.rank) if len(shape) == value.rank and shape[dim] != value.shape[dim]]
    places = {value.order[dim] for dim in spread}
    if value.rank != 4 or len(shape) != 4 or not places <= {2, 3} or any(value.shape[dim] != 1 for dim in spread):
        raise call.unknown(f"it repeats {value.shape} to {tuple(shape)}")
    size = (shape[value.order.index(2)], shape[value.order.index(3)])
    return call.on(value, ops.Resize(size, "nearest", "asymmetric"))


def depth_to_space(call: Call) -> Value:
    """DCR is the vocabulary's own mode. CRD has the output channel first, so the channels are reordered for it."""
    value, block = call.plain(), int(call.attribute("blocksize", 1))
    if value.rank != 4 or block < 1 or value.shape[1] % block**2:
        raise call.unknown(f"{value.shape} is not made of blocks of {block}x{block}")
    if block == 1:
        return value
    if call.attribute("mode", "DCR") == "CRD":
        value = plain(_reordered(call, value, block**2))
    return plain(call.emit(ops.DepthToSpace(block), value.node))


def _reordered(call: Call, value: Value, places: int) -> fx.Node:
    """The channels of one place together, where the places of one channel were."""
    batch, channels, *pixels = value.shape
    apart = ops.Reshape((batch, channels // places, places, *pixels), channels_last=False)
    moved = call.emit(ops.Transpose((0, 2, 1, 3, 4)), call.emit(apart, value.node, suffix="apart"), suffix="order")
    return call.emit(ops.Reshape(value.shape, channels_last=False), moved, suffix="together")


def space_to_depth(call: Call) -> Value:
    value, block = call.plain(), int(call.attribute("blocksize", 1))
    if value.rank != 4 or block < 1:
        raise call.unknown("it does not read a map")
    return plain(call.emit(ops.SpaceToDepth(block), value.node))


_NUMBERS: dict[int, ops.NumberType] = {TensorProto.INT32: "int32", TensorProto.INT64: "int64"}
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16)


def cast(call: Call) -> Value:
    """Any floating-point type becomes float32, and any integer type of 8 or 16 bits int32."""
    value, kind = call.value(), int(call.attribute("to", TensorProto.FLOAT))
    before = _maker(call, value)
    if kind in _FLOATS:
        counts = isinstance(before, ops.ArgMax) or (isinstance(before, ops.Cast) and before.dtype != "float32")
        return call.on(value, ops.Cast("float32")) if counts else value
    if kind == TensorProto.BOOL:
        return in_torch(lambda call, x: comparisons.different(x, 0.0))(call)
    if kind in (TensorProto.UINT8, TensorProto.INT8, TensorProto.INT16, TensorProto.UINT16):
        return call.on(value, ops.Cast("int32"))
    if kind not in _NUMBERS:
        raise call.unknown("it converts to a type that mobile files lack")
    if isinstance(before, ops.ArgMax) and kind == TensorProto.INT64:
        return value
    return call.on(value, ops.Cast(_NUMBERS[kind]))


def _maker(call: Call, value: Value) -> nn.Module | None:
    """The layer that determines the number type of a value."""
    node = value.node
    while isinstance(layer := call.builder.layer(node), ops.Reshape | ops.Slice | ops.Pad | ops.Resize):
        node = node.all_input_nodes[0]
    return layer
