"""A flatbuffer that says nothing twice: equal vectors and strings are written once, and every table points at that one.

    Given   a `ModelT` where n filters of a layer have n zero points, all 0, of 8 bytes each, for weights and for biases
    Result  the same tables, bit for bit what a reader sees; one vector of zeros for every number of filters in the file

Shapes, index lists, names and stored constants are shared likewise. In int8 files of narrow networks zero points are
the largest part beside the weights.
"""

from __future__ import annotations

from typing import Any

import flatbuffers
import numpy as np


class Builder(flatbuffers.Builder):  # type: ignore[misc]  # the package has no types
    """flatbuffers' builder; a vector or string that it has written before is not written again.

    Vectors of offsets, which are relative to their own place, take another way and are never shared.
    """

    def __init__(self, capacity_bytes: int = 1 << 20) -> None:
        super().__init__(capacity_bytes)
        self._vectors: dict[tuple[str, bytes], int] = {}
        self._strings: dict[str | bytes, int] = {}

    def CreateNumpyVector(self, x: np.ndarray[Any, Any]) -> int:  # flatbuffers' own name
        key = x.dtype.str, x.tobytes()  # the type, too: it decides on alignment and length
        if key not in self._vectors:
            self._vectors[key] = super().CreateNumpyVector(x)
        return self._vectors[key]

    def CreateString(self, s: str | bytes, *arguments: Any, **options: Any) -> int:
        if s not in self._strings:
            self._strings[s] = super().CreateString(s, *arguments, **options)
        return self._strings[s]


def pack(model: Any, identifier: bytes) -> bytes:
    """The bytes of a schema's `ModelT`, marked with `identifier`."""
    builder = Builder()
    builder.Finish(model.Pack(builder), identifier)
    return bytes(builder.Output())
