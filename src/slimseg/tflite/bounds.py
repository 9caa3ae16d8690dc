"""Computes how much memory a `.tflite` needs when it is unpacked, before it is unpacked.

A flatbuffer consists of tables that point at each other, and a malicious file may point at one table ten thousand
times: 24 kB of such offsets unpack to half a gigabyte. Following the offsets first counts all tables; in a normal file
their number is in proportion to the file's bytes. Vectors and strings may be shared to some extent, as in slimseg's own
files (`compact.py`).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from ai_edge_litert import schema_py_generated as schema

from slimseg.errors import ModelError

MAX_OPERATORS = 4_000
MAX_TABLES = 40_000  # a network of a thousand operators has about ten thousand
MAX_RANK = 32  # most dimensions of a tensor
MAX_INDICES = 400_000  # most inputs and outputs of all operators together
SLACK_BYTES = 1 << 20
_BYTES_PER_TABLE = 8  # least size of a table in the file: an offset to it, and an offset to its layout
_VECTORS_PER_BYTE, _TEXT_PER_BYTE = 8, 2  # most unpacked bytes of vectors and of strings per byte of the file


@dataclass(frozen=True)
class Table:
    """The fields of one kind of table, except plain numbers; keys are positions in its layout, the first is 4."""

    vectors: Mapping[int, int] = field(default_factory=dict)  # vectors of numbers, with the bytes per number
    strings: tuple[int, ...] = ()
    tables: Mapping[int, Table] = field(default_factory=dict)
    lists: Mapping[int, Table] = field(default_factory=dict)  # vectors of tables
    unions: Mapping[int, Mapping[int, Table]] = field(default_factory=dict)  # tables whose kind is in the field before
    what: Literal["", "operators", "indices", "shape"] = ""  # contents with a separate limit


_EMPTY = Table()
_OPTIONS = {schema.BuiltinOptions.VarHandleOptions: Table(strings=(4, 6))}
_OPTIONS_2 = {
    schema.BuiltinOptions2.StablehloCustomCallOptions: Table(strings=(4, 8)),
    schema.BuiltinOptions2.StableHLOCompositeOptions: Table(strings=(4,)),
}
_DIMENSION = Table(unions={10: {}, 14: {}})
_SPARSITY = Table(vectors={4: 4, 6: 4}, lists={8: _DIMENSION})
_QUANTISATION = Table(vectors={4: 4, 6: 4, 8: 4, 10: 8}, unions={14: {}})
_VARIANT = Table(vectors={4: 4}, what="shape")
_TENSOR = Table(
    vectors={4: 4, 18: 4},
    strings=(10,),
    tables={12: _QUANTISATION, 16: _SPARSITY},
    lists={22: _VARIANT},
    what="shape",
)
_OPERATOR = Table(vectors={6: 4, 8: 4, 14: 1, 18: 1, 20: 4}, unions={12: _OPTIONS, 28: _OPTIONS_2}, what="indices")
_GRAPH = Table(vectors={6: 4, 8: 4}, strings=(12,), lists={4: _TENSOR, 10: _OPERATOR})
_MAP = Table(strings=(4,))
_SIGNATURE = Table(strings=(8,), lists={4: _MAP, 6: _MAP})
_MODEL = Table(
    vectors={14: 4},
    strings=(10,),
    lists={
        6: Table(strings=(6,)),  # operator codes
        8: _GRAPH,
        12: _EMPTY,  # buffers: their bytes are used in place, not unpacked
        16: Table(strings=(4,)),  # metadata
        18: _SIGNATURE,
        20: Table(strings=(4,)),  # external buffers and their groups
        22: Table(strings=(12,)),
    },
)


def check(data: bytes, name: str) -> None:
    """Refuse a `.tflite` that unpacks to many times its size.

    Raises:
        ModelError: the file does so, or has a tensor of too many dimensions, or more operators than slimseg opens.
        struct.error: an offset points outside the file.
    """
    _Walk(data, name).table(_number(data, 0), _MODEL)


class _Walk:
    def __init__(self, data: bytes, name: str) -> None:
        self.data = data
        self.name = name
        size = len(data)
        self.tables_left = min(MAX_TABLES, size // _BYTES_PER_TABLE)
        self.vectors_left = _VECTORS_PER_BYTE * size + SLACK_BYTES
        self.text_left = _TEXT_PER_BYTE * size + SLACK_BYTES
        self.indices_left = MAX_INDICES
        self.operators_left = MAX_OPERATORS

    def table(self, place: int, kind: Table) -> None:
        self.tables_left -= 1
        if self.tables_left < 0:
            raise self._too_much("tables")
        if kind is _EMPTY:
            return
        layout = self._layout(place)
        for at, size in kind.vectors.items():
            self._vector(layout.get(at), size, kind, at)
        for at in kind.strings:
            self.text_left -= self._length(layout.get(at))
            if self.text_left < 0:
                raise self._too_much("text")
        for at, inner in kind.tables.items():
            if at in layout:
                self.table(self._target(layout[at]), inner)
        for at, kinds in kind.unions.items():
            if at in layout:
                own = self.data[layout[at - 2]] if at - 2 in layout else 0
                self.table(self._target(layout[at]), kinds.get(own, _EMPTY))
        for at, inner in kind.lists.items():
            self._list(layout.get(at), inner)

    def _layout(self, place: int) -> dict[int, int]:
        """Offset of each of the table's fields in the file, by position in the layout, without omitted fields."""
        layout = place - struct.unpack_from("<i", self.data, place)[0]
        if layout < 0:
            raise struct.error("a table's layout lies outside the file")
        (size,) = struct.unpack_from("<H", self.data, layout)
        offsets = struct.unpack_from(f"<{max(0, size - 4) // 2}H", self.data, layout + 4)
        return {4 + 2 * number: place + offset for number, offset in enumerate(offsets) if offset}

    def _vector(self, at: int | None, size: int, kind: Table, where: int) -> None:
        length = self._length(at)
        self.vectors_left -= length * size
        if self.vectors_left < 0:
            raise self._too_much("numbers")
        if kind.what == "shape" and length > MAX_RANK:
            raise ModelError(f"{self.name} has a tensor of {length} dimensions: is it the right file?")
        if kind.what == "indices":
            self.indices_left -= length if where in (6, 8) else 0
            if self.indices_left < 0:
                raise self._too_much("inputs and outputs of operators")

    def _list(self, at: int | None, kind: Table) -> None:
        length = self._length(at)
        if kind is _OPERATOR:
            self.operators_left -= length
            if self.operators_left < 0:
                raise ModelError(
                    f"{self.name} has more than the {MAX_OPERATORS} operators that slimseg opens: is it the right file?"
                )
        if length > self.tables_left:
            raise self._too_much("tables")
        if kind is _EMPTY:
            self.tables_left -= length
            return
        start = 0 if at is None else self._target(at) + 4
        for place in range(start, start + 4 * length, 4):
            self.table(self._target(place), kind)

    def _target(self, at: int) -> int:
        return at + _number(self.data, at)

    def _length(self, at: int | None) -> int:
        return 0 if at is None else _number(self.data, self._target(at))

    def _too_much(self, what: str) -> ModelError:
        return ModelError(
            f"{self.name} unpacks to many times its size, because it refers to the same {what} repeatedly: refused"
        )


def _number(data: bytes, at: int) -> int:
    return int(struct.unpack_from("<I", data, at)[0])
