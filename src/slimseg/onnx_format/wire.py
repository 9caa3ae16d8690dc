"""Counts what a protobuf message holds before it is parsed.

A parser makes an object of some eighty bytes from the two bytes of an empty message, so a file within any size limit
can still ask for a hundred times as much memory. Walking over the encoding first takes only a moment.
"""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from slimseg.errors import ModelError

MAX_FIELDS = 500_000  # most fields of a message; a network of a thousand operators has some twenty thousand
MAX_PACKED_BYTES = 16 << 20  # most packed whole numbers, at one byte each; each takes sixteen bytes in memory
MAX_DEPTH = 32
_FIXED = {1: 8, 5: 4}  # bytes of a value, by wire type
_VARINT, _DELIMITED = 0, 2


def check(data: bytes, descriptor: Descriptor, name: str) -> None:
    """Refuse `data` if parsing it as a message of `descriptor` would take far more memory than `data` itself.

    Raises:
        ModelError: it would take too much, or it is no such message.
    """
    fields, packed = 0, 0
    waiting: list[tuple[int, int, Any, int]] = [(0, len(data), descriptor, 0)]
    while waiting:
        position, end, kind, depth = waiting.pop()
        while position < end:
            fields += 1
            tag, position = _varint(data, position, end, name)
            wire = tag & 7
            if wire == _VARINT:
                _, position = _varint(data, position, end, name)
            elif wire in _FIXED:
                position += _FIXED[wire]
            elif wire == _DELIMITED:
                length, position = _varint(data, position, end, name)
                field = kind.fields_by_number.get(tag >> 3)
                if field is not None and field.message_type is not None:
                    waiting.append((position, position + length, field.message_type, depth + 1))
                elif field is not None and field.cpp_type in _WHOLE:
                    packed += length
                position += length
            else:
                raise _damaged(name)
            if position > end or depth > MAX_DEPTH:
                raise _damaged(name)
            if fields > MAX_FIELDS or packed > MAX_PACKED_BYTES:
                raise ModelError(f"{name} has more parts than any network: is it the right file?")


_WHOLE = (
    FieldDescriptor.CPPTYPE_INT32,
    FieldDescriptor.CPPTYPE_INT64,
    FieldDescriptor.CPPTYPE_UINT64,
    FieldDescriptor.CPPTYPE_ENUM,
)


def _varint(data: bytes, position: int, end: int, name: str) -> tuple[int, int]:
    value = shift = 0
    while position < end and shift < 70:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise _damaged(name)


def _damaged(name: str) -> ModelError:
    return ModelError(f"{name} is damaged or not an ONNX file: export the model again")
