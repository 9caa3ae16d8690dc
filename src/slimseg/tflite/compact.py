"""Writes a flatbuffer without duplicates: equal vectors and strings are stored once, and all tables point at that copy.

    Given   a `ModelT` where n filters of a layer have n zero points, all 0, of 8 bytes each, for weights and for biases
    Result  tables with the same contents for a reader; one vector of zeros for each different n in the file

Shapes, index lists, names and stored constants are shared likewise. In int8 files of narrow networks zero points are
the largest part after the weights.
"""

from __future__ import annotations

from typing import Any

import flatbuffers
import numpy as np


class Builder(flatbuffers.Builder):  # type: ignore[misc]  # the package has no types
    """flatbuffers' builder, which writes equal vectors and strings only once.

    Vectors of offsets are written by another method and never shared, since offsets are relative to their position.
    """

    def __init__(self, capacity_bytes: int = 1 << 20) -> None:
        super().__init__(capacity_bytes)
        self._vectors: dict[tuple[str, bytes], int] = {}
        self._strings: dict[str | bytes, int] = {}

    def CreateNumpyVector(self, x: np.ndarray[Any, Any]) -> int:  # flatbuffers' own name
        key = x.dtype.str, x.tobytes()  # with the type, which determines alignment and length
        if key not in self._vectors:
            self._vectors[key] = super().CreateNumpyVector(x)
        return self._vectors[key]

    def CreateString(self, s: str | bytes, *arguments: Any, **options: Any) -> int:
        if s not in self._strings:
            self._strings[s] = super().CreateString(s, *arguments, **options)
        return self._strings[s]


def pack(model: Any, identifier: bytes) -> bytes:
    """The bytes of a schema's `ModelT`, with the file identifier `identifier`."""
    builder = Builder()
    builder.Finish(model.Pack(builder), identifier)
    return bytes(builder.Output())
