"""Reshaping, slicing, joining, resizing and padding, described in Keras's NHWC and emitted in NCHW."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from itertools import accumulate
from typing import Any

from slimseg.errors import ModelError
from slimseg.frontends.keras import in_torch
from slimseg.frontends.keras.builder import Builder, Value
from slimseg.graph import ops
from slimseg.graph.ops import Coordinates, ResizeMode
from slimseg.graph.orders import TO_NCHW, TO_NHWC

_MOST_PARTS = 4096  # parts of a split
_MAX_PARTS = 8  # parts of a dimension that is reversed part by part, such as RGB to BGR


def reshape(b: Builder, x: Value, shape: Sequence[int | None], suffix: str = "") -> Value:
    """Reshape to `shape`, in Keras's order with the batch; one number may be -1 or None.

    Raises:
        ModelError: the values do not fit into the shape.
    """
    sizes = [1, *(-1 if size is None else int(size) for size in list(shape)[1:])]
    known = math.prod(size for size in sizes if size != -1)
    if sizes.count(-1) > 1 or known <= 0 or math.prod(x.shape) % known:
        raise ModelError(f"a tensor of {x.keras_shape} does not fit into {tuple(shape)}")
    sizes = [math.prod(x.shape) // known if size == -1 else size for size in sizes]
    if tuple(sizes) == x.keras_shape:
        return x
    if len(sizes) == 4:
        sizes = [sizes[axis] for axis in TO_NCHW]
    return b.emit(ops.Reshape(tuple(sizes)), x, suffix=suffix)


def flatten(b: Builder, x: Value, suffix: str = "") -> Value:
    return reshape(b, x, (1, -1), suffix=suffix)


def expand_dims(b: Builder, x: Value, axis: int = -1, suffix: str = "") -> Value:
    shape = list(x.keras_shape)
    shape.insert(axis if axis >= 0 else len(shape) + 1 + axis, 1)
    return reshape(b, x, shape, suffix=suffix)


def squeeze(b: Builder, x: Value, axis: Any = None, suffix: str = "") -> Value:
    rank = len(x.shape)
    axes = range(1, rank) if axis is None else [axis] if isinstance(axis, int) else axis
    gone = {each % rank for each in axes if x.keras_shape[each] == 1}
    return reshape(b, x, [size for each, size in enumerate(x.keras_shape) if each not in gone], suffix=suffix)


def transpose(b: Builder, x: Value, axes: Sequence[int], suffix: str = "") -> Value:
    """Transpose: `axes[i]` is the dimension that becomes dimension i, in Keras's order with the batch."""
    if sorted(axes) != list(range(len(x.shape))) or axes[0] != 0:
        raise ModelError(
            f"{tuple(axes)} is not an order of the dimensions of {x.keras_shape} that keeps the batch first"
        )
    if list(axes) == sorted(axes):
        return x
    if len(axes) != 4:
        return b.emit(ops.Transpose(tuple(axes)), x, suffix=suffix)
    return b.emit(ops.Transpose(tuple(TO_NHWC[axes[axis]] for axis in TO_NCHW)), x, suffix=suffix)


def concat(b: Builder, values: Sequence[Value], axis: int = -1, suffix: str = "") -> Value:
    tensors = list(values)
    if not tensors or not all(isinstance(value, Value) for value in tensors):
        raise ModelError("a concatenation has an input that is not a tensor of the network")
    return tensors[0] if len(tensors) == 1 else b.emit(ops.Concat(tensors[0].dim(axis)), *tensors, suffix=suffix)


def stack(b: Builder, values: Sequence[Value], axis: int = 0, suffix: str = "") -> Value:
    return concat(b, [expand_dims(b, value, axis, f"{suffix}_part".strip("_")) for value in values], axis, suffix)


def split(b: Builder, x: Value, parts: Any, axis: int = -1, suffix: str = "") -> list[Value]:
    """Split along `axis`; `parts` is the number of equal parts, or a list of their lengths."""
    length = x.shape[x.dim(axis)]
    if (parts if isinstance(parts, int) else len(parts)) > _MOST_PARTS:
        raise ModelError(f"a split has more than {_MOST_PARTS} parts, more than any network needs")
    lengths = [length // parts] * parts if isinstance(parts, int) and 0 < parts <= length else parts
    if not isinstance(lengths, list | tuple) or sum(lengths) != length:
        raise ModelError(f"a dimension of {length} does not divide into {parts}")
    starts = [0, *accumulate(lengths)][:-1]
    return [_part(b, x, axis, start, start + size, 1, suffix) for start, size in zip(starts, lengths, strict=True)]


def get_item(b: Builder, x: Any, key: Any, suffix: str = "") -> Any:
    """`x[key]` for a tensor or a list of tensors."""
    if not isinstance(x, Value):
        return x[key[0] if isinstance(key, list | tuple) and len(key) == 1 else key]
    keys = list(key) if isinstance(key, list | tuple) else [key]
    if ... in keys:
        at = keys.index(...)
        missing = len(x.shape) - sum(each is not None for each in keys) + 1
        keys[at : at + 1] = [slice(None)] * missing
    shape: list[int] = []
    axis = 0
    for each in keys:
        if each is None:
            shape.append(1)
            continue
        if axis >= len(x.shape):
            raise ModelError(f"{tuple(keys)} has too many indices for a tensor of {x.keras_shape}")
        length = x.keras_shape[axis]
        index = slice(each, each + 1 or None) if isinstance(each, int) else each
        start, stop, step = index.indices(length)
        if step == -1 and 0 < start - stop <= _MAX_PARTS and axis:
            part = f"{suffix}_part".strip("_")
            parts = [_part(b, x, axis, place, place + 1, 1, part) for place in range(start, stop, -1)]
            x, start, stop, step = concat(b, parts, axis, suffix=suffix), 0, start - stop, 1
        if step < 1 or (axis == 0 and isinstance(each, int)):
            raise ModelError(f"the slice {tuple(keys)} has no counterpart in slimseg: give the .tflite instead")
        x = _part(b, x, axis, start, stop, step, suffix)
        if not isinstance(each, int):
            shape.append(x.keras_shape[axis])
        axis += 1
    return reshape(b, x, [*shape, *x.keras_shape[axis:]], suffix=f"{suffix}_shape".strip("_"))


def _part(b: Builder, x: Value, axis: int, start: int, stop: int, step: int, suffix: str) -> Value:
    if (start, stop, step) == (0, x.shape[x.dim(axis)], 1):
        return x
    return b.emit(ops.Slice(x.dim(axis), start, stop, step), x, suffix=suffix)


def strided_slice(
    b: Builder,
    x: Value,
    begin: Sequence[int],
    end: Sequence[int],
    strides: Sequence[int] | None = None,
    begin_mask: int = 0,
    end_mask: int = 0,
    shrink_axis_mask: int = 0,
    suffix: str = "",
) -> Value:
    """tf.strided_slice without ellipsis and new axes; bit i of a mask refers to dimension i."""
    keys: list[Any] = []
    for axis, (start, stop, step) in enumerate(zip(begin, end, strides or [1] * len(begin), strict=True)):
        if shrink_axis_mask >> axis & 1:
            keys.append(start)
        else:
            keys.append(slice(None if begin_mask >> axis & 1 else start, None if end_mask >> axis & 1 else stop, step))
    result: Value = get_item(b, x, keys, suffix=suffix)
    return result


def resize(
    b: Builder, x: Value, size: Sequence[int], method: str, coordinates: Coordinates = "half_pixel", suffix: str = ""
) -> Value:
    """Resize to `size` (height, width) pixels; `method` is "bilinear" or "nearest"."""
    if method not in ("bilinear", "nearest"):
        raise ModelError(f"a {method} resize has no counterpart in slimseg: give the .tflite instead")
    if len(x.shape) != 4 or len(size) != 2:
        raise ModelError(f"a tensor of {x.keras_shape} is resized to {tuple(size)}, but it is not an image")
    target = (int(size[0]), int(size[1]))
    mode: ResizeMode = "bilinear"
    if method == "nearest":
        # For a whole factor, all conventions but align_corners read the same pixels.
        whole = not (target[0] % x.shape[2] or target[1] % x.shape[3])
        mode = "nearest" if coordinates != "half_pixel" or whole else "nearest-exact"
        coordinates = "align_corners" if coordinates == "align_corners" else "half_pixel"
    return b.emit(ops.Resize(target, mode, coordinates), x, suffix=suffix)


def pad(b: Builder, x: Value, amounts: Sequence[Sequence[int]], value: float = 0.0, suffix: str = "") -> Value:
    """Pad a map; `amounts` are (before, after) in height and width, where negative numbers crop."""
    (top, bottom), (left, right) = ((int(before), int(after)) for before, after in amounts)
    if len(x.shape) != 4:
        raise ModelError(f"a tensor of {x.keras_shape} is padded, but it is not an image")
    if not any((left, right, top, bottom)):
        return x
    return b.emit(ops.Pad((left, right, top, bottom), float(value)), x, suffix=suffix)


def pad_all(b: Builder, x: Value, paddings: Any, mode: str = "constant", constant_values: float = 0.0) -> Value:
    """tf.pad and keras.ops.pad: `paddings` are (before, after) for every dimension."""
    if str(mode).lower() != "constant" or len(paddings) != 4 or any(map(any, (paddings[0], paddings[3]))):
        function = partial(in_torch.padded, paddings=paddings, mode=str(mode).lower(), value=constant_values or 0.0)
        return in_torch.in_torch(function)(b, x)
    return pad(b, x, paddings[1:3], constant_values or 0.0)


def depth_to_space(b: Builder, x: Value, block_size: int, data_format: str = "NHWC", suffix: str = "") -> Value:
    return b.emit(ops.DepthToSpace(int(block_size)), x, suffix=suffix)


def space_to_depth(b: Builder, x: Value, block_size: int, data_format: str = "NHWC", suffix: str = "") -> Value:
    return b.emit(ops.SpaceToDepth(int(block_size)), x, suffix=suffix)
