"""ONNX tensors to numpy arrays. Headers are not trusted: a shape must fit the stored bytes before it is allocated.

A large model stores its values in a second file beside it ("external data"). That file is read only if it lies in the
model's own folder or in folders within it, and no link leads to it, so that a model cannot read other files of this
machine.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto

from slimseg.errors import ModelError

Array = np.ndarray[Any, Any]

MAX_DATA_BYTES = 1 << 30  # bytes of all values of a model together, as float32
_GROWTH, _SLACK_BYTES = 4, 1 << 16  # one-byte numbers become four-byte numbers

# Each ONNX type: its type in raw bytes, and the field that holds its values otherwise.
_TYPES: dict[int, tuple[str, str]] = {
    TensorProto.FLOAT: ("<f4", "float_data"),
    TensorProto.UINT8: ("u1", "int32_data"),
    TensorProto.INT8: ("i1", "int32_data"),
    TensorProto.UINT16: ("<u2", "int32_data"),
    TensorProto.INT16: ("<i2", "int32_data"),
    TensorProto.INT32: ("<i4", "int32_data"),
    TensorProto.INT64: ("<i8", "int64_data"),
    TensorProto.BOOL: ("?", "int32_data"),
    TensorProto.FLOAT16: ("<f2", "int32_data"),
    TensorProto.BFLOAT16: ("<u2", "int32_data"),
    TensorProto.DOUBLE: ("<f8", "double_data"),
    TensorProto.UINT32: ("<u4", "uint64_data"),
    TensorProto.UINT64: ("<u8", "uint64_data"),
}
_HALF_BYTES = (TensorProto.UINT4, TensorProto.INT4)  # two numbers in each byte, the first in its low half
DTYPES: dict[int, np.dtype[Any]] = {kind: np.dtype(code) for kind, (code, _) in _TYPES.items()}


class TensorReader:
    """Reads the tensors of one model file, and counts the memory that they take."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size_bytes = path.stat().st_size  # with the data files beside it
        self.used_bytes = 0
        self._beside: dict[str, Path] = {}
        self.halves = False  # whether weights (not just single numbers) were float16

    def read(self, tensor: TensorProto) -> Array:
        """Values of a tensor: float16, bfloat16 and float64 as float32, all other types unchanged.

        Raises:
            ModelError: the bytes do not fit the shape, the type is unknown, or the data file cannot be used.
        """
        if tensor.data_type in _HALF_BYTES:
            return self._half_bytes(tensor)
        if tensor.data_type not in _TYPES:
            raise ModelError(
                f"{self.path} holds the tensor {tensor.name[:100]!r} of a type that is not numeric: export it again"
            )
        code, field = _TYPES[tensor.data_type]
        shape, dtype = tuple(tensor.dims), np.dtype(code)
        self.halves |= tensor.data_type == TensorProto.FLOAT16 and len(shape) > 1
        if min(shape, default=0) < 0 or len(shape) > 8:
            raise self._damaged(tensor)
        count = math.prod(shape)
        if tensor.data_location == TensorProto.EXTERNAL:
            self._find(tensor)
        self.used_bytes += count * max(dtype.itemsize, 4)
        if self.used_bytes > min(MAX_DATA_BYTES, _GROWTH * self.size_bytes + _SLACK_BYTES):
            raise ModelError(
                f"{self.path} declares far more values than it contains, or over "
                f"{MAX_DATA_BYTES >> 30} GiB of them: export it again"
            )
        return _as_float32(self._flat(tensor, dtype, field, count), tensor.data_type).reshape(shape)

    def _half_bytes(self, tensor: TensorProto) -> Array:
        """Numbers of 4 bits, as whole numbers of 8."""
        count = math.prod(tensor.dims)
        raw = bytes(tensor.raw_data) or bytes(value & 0xFF for value in tensor.int32_data)
        self.used_bytes += 4 * count
        if min(tensor.dims, default=0) < 0 or len(raw) != -(-count // 2) or tensor.data_location:
            raise self._damaged(tensor)
        pairs = np.frombuffer(raw, np.uint8)
        halves = np.stack((pairs & 15, pairs >> 4), -1).reshape(-1)[:count]
        if tensor.data_type == TensorProto.INT4:
            return ((halves.astype(np.int8) ^ 8) - 8).reshape(tuple(tensor.dims))
        return halves.reshape(tuple(tensor.dims))

    def _flat(self, tensor: TensorProto, dtype: np.dtype[Any], field: str, count: int) -> Array:
        if tensor.data_location == TensorProto.EXTERNAL:
            raw = self._external(tensor, count * dtype.itemsize)
        elif tensor.raw_data or not count:
            raw = tensor.raw_data
        else:
            return self._listed(tensor, dtype, field, count)
        if len(raw) != count * dtype.itemsize:
            raise self._damaged(tensor)
        return np.frombuffer(raw, dtype)

    def _listed(self, tensor: TensorProto, dtype: np.dtype[Any], field: str, count: int) -> Array:
        values = getattr(tensor, field)
        if len(values) != count:
            raise self._damaged(tensor)
        if tensor.data_type == TensorProto.FLOAT16:
            return np.array(values, np.uint16).view(np.float16)
        return np.array(values, dtype)

    def _external(self, tensor: TensorProto, length: int) -> bytes:
        entries, beside = _entries(tensor), self._find(tensor)
        offset, declared = int(entries.get("offset", 0)), int(entries.get("length", length))
        if declared != length or offset < 0 or offset + length > beside.stat().st_size:
            raise self._damaged(tensor)
        with beside.open("rb") as file:
            file.seek(offset)
            return file.read(length)

    def _find(self, tensor: TensorProto) -> Path:
        """The data file that holds the tensor; its size is counted once."""
        location = _entries(tensor).get("location", "")
        if location in self._beside:
            return self._beside[location]
        beside = self.path.parent / location
        if not _is_inside(self.path.parent, location):
            raise ModelError(
                f"{self.path} keeps its values in {location[:100]!r}, not a file beside it: export it as one file"
            )
        if not beside.is_file():
            raise ModelError(
                f"{self.path} keeps its values in {location[:100]}, which is missing: put that file beside it"
            )
        self.size_bytes += beside.stat().st_size
        self._beside[location] = beside
        return beside

    def _damaged(self, tensor: TensorProto) -> ModelError:
        return ModelError(
            f"{self.path} is damaged: the values of {tensor.name[:100]!r} do not fit its shape; export it again"
        )


def _is_inside(folder: Path, location: str) -> bool:
    """Whether a location is that of a file in the folder, or in folders within it, none of which is a link."""
    parts = location.split("/")
    if set(location) & set("\\\0:") or any(part in ("", ".", "..") for part in parts):
        return False
    return not any(folder.joinpath(*parts[: depth + 1]).is_symlink() for depth in range(len(parts)))


def _entries(tensor: TensorProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in tensor.external_data}


def _as_float32(values: Array, kind: int) -> Array:
    if kind == TensorProto.BFLOAT16:  # bfloat16 is the upper half of a float32
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float32) if values.dtype.kind == "f" and values.dtype != np.float32 else values
