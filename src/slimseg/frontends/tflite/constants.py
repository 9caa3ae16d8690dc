"""The file's constants as arrays: float16 and quantised ones as float32, integers unchanged; folds constants.

A file is untrusted: an array is made only if its buffer has exactly as many bytes as its shape says.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from slimseg.errors import ModelError
from slimseg.frontends.work import LARGEST_CONSTANT, Work, broadcast_count

Array = np.ndarray[Any, Any]
_DTYPES: dict[str, Any] = {
    "float32": np.float32,
    "float16": np.float16,
    "int32": np.int32,
    "uint8": np.uint8,
    "int64": np.int64,
    "bool": np.bool_,
    "int16": np.int16,
    "int8": np.int8,
    "float64": np.float64,
    "uint32": np.uint32,
}


def decoded(data: Array, dtype: str, shape: Sequence[int], quantisation: Any) -> Array:
    """A stored tensor: float32 if it holds real numbers, else its integers.

    Raises:
        ModelError: the buffer does not fit the shape, or its type or quantisation cannot be read.
    """
    if dtype == "int4":
        values = _unpacked_int4(data, math.prod(shape)).reshape(shape)
    elif dtype not in _DTYPES:
        raise ModelError(f"holds constants of type {dtype}")
    else:
        wanted = math.prod(shape) * np.dtype(_DTYPES[dtype]).itemsize
        if wanted != len(data):
            raise ModelError(f"holds {len(data)} bytes, while {tuple(shape)} of {dtype} needs {wanted}")
        values = np.frombuffer(data.tobytes(), _DTYPES[dtype]).reshape(shape)
    if quantisation is not None and quantisation.scale is not None and len(quantisation.scale):
        return _dequantised(values, quantisation)
    return values.astype(np.float32) if values.dtype.kind == "f" else values


def _unpacked_int4(data: Array, count: int) -> Array:
    """Two values per byte, low half first."""
    if len(data) != -(-count // 2):
        raise ModelError(f"holds {len(data)} bytes, while {count} values of int4 need {-(-count // 2)}")
    nibbles = np.stack([data & 15, data >> 4], 1).reshape(-1)[:count].astype(np.int8)
    return np.where(nibbles > 7, nibbles - 16, nibbles).astype(np.int8)


def _dequantised(values: Array, quantisation: Any) -> Array:
    scale = np.asarray(quantisation.scale, np.float32)
    zero = quantisation.zeroPoint
    zeros = np.zeros(len(scale), np.int64) if zero is None or not len(zero) else np.asarray(zero, np.int64)
    if len(scale) > 1:
        axis = int(quantisation.quantizedDimension)
        if not 0 <= axis < values.ndim or len(scale) != values.shape[axis] or len(zeros) not in (1, len(scale)):
            raise ModelError(f"has {len(scale)} scales for a tensor of {values.shape}")
        spread = (1,) * axis + (-1,) + (1,) * (values.ndim - axis - 1)
        scale = scale.reshape(spread)
        zeros = zeros.reshape(spread) if len(zeros) > 1 else zeros
    real: Array = ((values.astype(np.int64) - zeros) * scale).astype(np.float32)
    return real


def fold(
    op: str, inputs: Sequence[Array | None], options: Any, output_shape: tuple[int, ...], work: Work
) -> Array | None:
    """The result of an operator on constants alone (shapes computed in the file, transposed weights); None if unknown.

    Raises:
        ModelError: the file computes more from constants than a network needs.
    """
    values = [value for value in inputs if value is not None]
    if op not in _FOLDS or not inputs or len(values) < len(inputs):
        return None
    try:
        count = _count(op, values, options)
        if max(count, *(value.size for value in values)) > LARGEST_CONSTANT:
            return None
        work.compute(count, *(value.size for value in values))
        with np.errstate(all="ignore"):
            return np.asarray(_FOLDS[op](values, options, output_shape))
    except (ValueError, IndexError, TypeError, OverflowError, ZeroDivisionError):
        return None


def _count(op: str, values: Sequence[Array], options: Any) -> int:
    """The largest number of values that an operator may return."""
    if op in _ELEMENTWISE:
        return broadcast_count([value.shape for value in values])
    if op == "GATHER":
        return int(values[0].size // max(1, values[0].shape[int(options.axis or 0)]) * values[1].size)
    return sum(value.size for value in values)


_ELEMENTWISE = ("ADD", "SUB", "MUL", "FLOOR_DIV", "DIV")


def _strided(values: Sequence[Array], options: Any, _: tuple[int, ...]) -> Array:
    source, begins, ends, strides = values
    if options.ellipsisMask or options.newAxisMask:
        raise ValueError("new axes")
    parts: list[Any] = []
    for axis, (begin, end, stride) in enumerate(zip(begins.tolist(), ends.tolist(), strides.tolist(), strict=True)):
        if options.shrinkAxisMask >> axis & 1:
            parts.append(begin)
        else:
            first = None if options.beginMask >> axis & 1 else begin
            parts.append(slice(first, None if options.endMask >> axis & 1 else end, stride))
    return np.asarray(source[tuple(parts)])


_FOLDS: Mapping[str, Callable[[Sequence[Array], Any, tuple[int, ...]], Any]] = {
    "DEQUANTIZE": lambda v, o, s: v[0].astype(np.float32),
    "QUANTIZE": lambda v, o, s: v[0],
    "CAST": lambda v, o, s: v[0],
    "RESHAPE": lambda v, o, s: v[0].reshape(s),
    "SQUEEZE": lambda v, o, s: v[0].reshape(s),
    "EXPAND_DIMS": lambda v, o, s: v[0].reshape(s),
    "TRANSPOSE": lambda v, o, s: v[0].transpose([int(axis) for axis in v[1]]),
    "STRIDED_SLICE": _strided,
    "SLICE": lambda v, o, s: v[0][
        tuple(slice(b, None if n == -1 else b + n) for b, n in zip(v[1].tolist(), v[2].tolist(), strict=True))
    ],
    "PACK": lambda v, o, s: np.stack(v, int(o.axis)),
    "CONCATENATION": lambda v, o, s: np.concatenate([np.atleast_1d(each) for each in v], int(o.axis)),
    "GATHER": lambda v, o, s: np.take(v[0], v[1], int(o.axis or 0)),
    "ADD": lambda v, o, s: v[0] + v[1],
    "SUB": lambda v, o, s: v[0] - v[1],
    "MUL": lambda v, o, s: v[0] * v[1],
    "FLOOR_DIV": lambda v, o, s: v[0] // v[1],
    "DIV": lambda v, o, s: v[0] / v[1] if v[0].dtype.kind == "f" else v[0] // v[1],
    "NEG": lambda v, o, s: -v[0],
    "RSQRT": lambda v, o, s: 1 / np.sqrt(v[0]),
    "SQRT": lambda v, o, s: np.sqrt(v[0]),
}
