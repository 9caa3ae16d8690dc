"""Values that are no tensors of numbers: positions of maxima, which unpooling reads, and lists of tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from slimseg.frontends.aten.decompositions import windows
from slimseg.frontends.onnx import constants, layout, pooling
from slimseg.frontends.onnx.builder import Call, Value, plain
from slimseg.frontends.onnx.in_torch import in_torch
from slimseg.frontends.onnx.tensors import Array
from slimseg.graph import ops


@dataclass(frozen=True)
class Places(Value):
    """Where a pooling found its maxima; `node` is what it read, in NCHW.

    ONNX counts the positions through all channels of an image. Exporters subtract and add what lies before a channel:
    `offset` is the sum of it, and `lengths` is the shape of the positions before any reshape.
    """

    kernel: tuple[int, int]
    offset: Array
    lengths: tuple[int, ...]


@dataclass(frozen=True)
class Parts(Value):
    """A list of tensors; `node` is one of theirs."""

    parts: tuple[Value, ...]


Marker = Places | Parts


def follow(call: Call) -> Value | Array | tuple[Value, ...]:
    """What an operator makes of positions or of a list.

    Raises:
        UnknownOperator: it is not known for them.
    """
    if any(isinstance(each, Parts) for each in call.inputs):
        return _of_list(call)
    first = call.inputs[0]
    if isinstance(first, Places):
        return _moved(call, first)
    if call.node.op == "MaxUnpool":
        return _unpooled(call)
    if call.node.op == "ScatterND":
        return _scattered(call)
    if call.node.op == "Add" and isinstance(places := call.inputs[1], Places):
        return replace(places, offset=places.offset + _constant(call, 0))
    raise call.unknown("it reads positions of maxima")


def _moved(call: Call, places: Places) -> Places:
    if call.node.op in ("Add", "Sub"):
        change = _constant(call, 1)
        return replace(places, offset=places.offset + (change if call.node.op == "Add" else -change))
    if call.node.op in ("Reshape", "Flatten", "Unsqueeze", "Squeeze", "Identity", "Cast"):
        return places
    raise call.unknown("it reads positions of maxima")


def _constant(call: Call, index: int) -> Array:
    given = call.constant(index)
    if given is None or given.ndim > 4:
        raise call.unknown("it reads positions of maxima")
    return given


def _unpooled(call: Call) -> Value:
    places = call.inputs[1]
    kernel = tuple(int(each) for each in call.attribute("kernel_shape"))
    steps = tuple(int(each) for each in call.attribute("strides", (1, 1)))
    if not isinstance(places, Places) or places.kernel != kernel or steps != kernel or any(call.attribute("pads", ())):
        raise call.unknown("its windows are not those of the pooling, or overlap")
    shape = call.constant(2) if len(call.inputs) > 2 else None
    _, _, height, width = places.shape
    wanted = [int(each) for each in shape[-2:]] if shape is not None else _smallest(places)
    if wanted[1] != width or wanted[0] < places.lengths[2] * kernel[0]:
        raise call.unknown(f"its output is not as wide as the map of {height}x{width} that was pooled")
    return _emitted(call, call.plain(0), places, wanted)


def _smallest(places: Places) -> list[int]:
    return [length * side for length, side in zip(places.lengths[2:], places.kernel, strict=True)]


def _scattered(call: Call) -> Value:
    """Values at the places of the maxima in a flat tensor of zeros, as PyTorch's exporter writes unpooling."""
    data, places, updates = call.inputs
    if not isinstance(places, Places) or not isinstance(data, np.ndarray) or data.any() or data.ndim != 1:
        raise call.unknown("it does not put values at positions of maxima into zeros")
    _, channels, rows, columns = places.shape
    height = data.size // (channels * columns)
    before = np.arange(channels).reshape(1, -1, 1, 1) * ((height - rows) * columns)
    if data.size != channels * height * columns or (np.broadcast_to(places.offset, before.shape) != before).any():
        raise call.unknown("its positions are not those of a map")
    if not isinstance(updates, Value):
        raise call.unknown("its values are no map")
    values = layout.reshaped(call, updates, places.lengths)
    flat = _emitted(call, values, places, [height, columns])
    return plain(call.emit(ops.Reshape((data.size,), channels_last=False), flat.node, suffix="flat"))


def _emitted(call: Call, values: Value, places: Places, size: Sequence[int]) -> Value:
    kernel = places.kernel
    if any(length * side > whole for length, side, whole in zip(places.lengths[2:], kernel, size, strict=True)):
        raise call.unknown("its windows reach beyond the map")

    def unpool(_: Call, x: Tensor, pooled: Tensor) -> Tensor:
        return windows.unpool(x, pooled, kernel, size)

    inputs = [values, Value(places.node, places.order)]
    return in_torch(unpool)(Call(call.builder, call.node, inputs))


# --- lists


def _of_list(call: Call) -> Value | Array | tuple[Value, ...]:
    rule = _OF_LISTS.get(call.node.op)
    if rule is None:
        raise call.unknown("it reads a list of tensors")
    found: Value | Array = rule(call)
    return found


def listed(call: Call) -> Value:
    """SequenceConstruct."""
    return _parts(tuple(call.value(index) for index in range(len(call.inputs))))


def _parts(parts: tuple[Value, ...]) -> Parts:
    return Parts(parts[0].node, parts[0].order, parts)


def split(call: Call) -> Value:
    """SplitToSequence: into parts of a length, of several lengths, or of length 1."""
    value, given = call.value(), call.constant(1)
    axis = int(call.attribute("axis", 0)) % value.rank
    whole = value.shape[axis]
    if given is None or given.ndim == 0:
        step = 1 if given is None else max(int(given), 1)
        lengths = [min(step, whole - start) for start in range(0, whole, step)]
    else:
        lengths = [int(length) for length in given]
    if sum(lengths) != whole or min(lengths) < 1:
        raise call.unknown(f"{whole} values are not split into {lengths}")
    parts, start = [], 0
    for number, length in enumerate(lengths):
        part = layout.part(call, value, axis, start, start + length, suffix=str(number))
        if given is None and not call.attribute("keepdims", 1):
            part = layout.reshaped(call, part, (*part.shape[:axis], *part.shape[axis + 1 :]))
        parts.append(part)
        start += length
    return _parts(tuple(parts))


def _of(call: Call) -> tuple[Value, ...]:
    given = call.inputs[0]
    assert isinstance(given, Parts)
    return given.parts


def _at(call: Call) -> Value:
    index = call.constant(1)
    assert index is not None
    return _of(call)[int(index.reshape(-1)[0])]


def _inserted(call: Call) -> Value:
    parts, place = list(_of(call)), call.constant(2) if len(call.inputs) > 2 else None
    parts.insert(len(parts) if place is None else int(place.reshape(-1)[0]), call.value(1))
    return _parts(tuple(parts))


def _erased(call: Call) -> Value:
    parts, place = list(_of(call)), call.constant(1) if len(call.inputs) > 1 else None
    del parts[-1 if place is None else int(place.reshape(-1)[0])]
    return _parts(tuple(parts))


def _joined(call: Call) -> Value:
    parts, axis = _of(call), int(call.attribute("axis", 0))
    if call.attribute("new_axis", 0):
        axis %= parts[0].rank + 1
        parts = tuple(layout.reshaped(call, part, constants.unsqueezed_shape(part.shape, [axis])) for part in parts)
    return layout.concat(Call(call.builder, replace(call.node, attributes={"axis": axis}), parts))


_OF_LISTS: Mapping[str, Callable[[Call], Any]] = {
    "SequenceAt": _at,
    "SequenceInsert": _inserted,
    "SequenceErase": _erased,
    "ConcatFromSequence": _joined,
    "SequenceLength": lambda call: np.asarray(len(_of(call)), np.int64),
    "Identity": lambda call: call.inputs[0],
}


def max_pool(call: Call) -> Value | tuple[Value | Array, ...]:
    """Maxima, and where they are; a window of one pixel counts the pixels."""
    pooled = pooling.max_pool(call)
    if not any(call.builder.consumers.get(name) for name in call.node.outputs[1:]):
        return pooled
    source, kernel = call.plain(0), tuple(int(each) for each in call.attribute("kernel_shape"))
    steps = tuple(int(each) for each in call.attribute("strides", (1, 1)))
    if source.rank != 4 or steps != kernel or any(call.attribute("pads", ())) or call.attribute("storage_order", 0):
        raise call.unknown("it outputs the positions of the maxima of windows that overlap")
    if kernel == (1, 1):
        call.builder.work.compute(int(np.prod(source.shape)))
        return pooled, np.arange(np.prod(source.shape)).reshape(source.shape)
    return pooled, Places(
        source.node, source.order, (kernel[0], kernel[1]), np.zeros((1, 1, 1, 1), np.int64), pooled.shape
    )
