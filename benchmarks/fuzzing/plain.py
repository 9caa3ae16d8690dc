"""Mutations of bytes, for files of any kind."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

from fuzzing.values import Random, chosen

LENGTHS = (0, 1, 2, 4, 8, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFFC)
Mutation = Callable[[Random, bytearray], bytearray]


def mutated(random: Random, data: bytes, others: Sequence[bytes] = ()) -> bytes:
    """Some mutations one after another; `others` are files of the same kind to take pieces of."""
    result = bytearray(data)
    for _ in range(int(random.integers(1, 4))):
        if not result:
            break
        if others and random.random() < 0.1:
            result = _spliced(random, result, chosen(random, others))
        else:
            result = chosen(random, MUTATIONS)(random, result)
    return bytes(result)


def _place(random: Random, data: bytearray) -> int:
    """Anywhere, but more often near the ends, where headers and directories lie."""
    edge = min(len(data), 512)
    where = random.random()
    if where < 0.3:
        return int(random.integers(edge))
    if where < 0.4:
        return len(data) - 1 - int(random.integers(edge))
    return int(random.integers(len(data)))


def _flip(random: Random, data: bytearray) -> bytearray:
    for _ in range(int(random.integers(1, 9))):
        data[_place(random, data)] ^= 1 << int(random.integers(8))
    return data


def _noise(random: Random, data: bytearray) -> bytearray:
    start = _place(random, data)
    stop = min(len(data), start + int(random.integers(1, 33)))
    data[start:stop] = random.bytes(stop - start)
    return data


def _length(random: Random, data: bytearray) -> bytearray:
    """A number of 4 or 8 bytes, most often aligned, becomes an extreme."""
    wide = bool(random.random() < 0.2)
    start = _place(random, data) & ~3
    packed = struct.pack("<Q" if wide else "<I", chosen(random, LENGTHS))
    data[start : start + len(packed)] = packed
    return data


def _offset(random: Random, data: bytearray) -> bytearray:
    """An offset or index points elsewhere: another number of the file stands in its place, or one a little beside."""
    start, source = _place(random, data) & ~3, _place(random, data) & ~3
    if random.random() < 0.5 and start + 4 <= len(data):
        (old,) = struct.unpack_from("<I", data, start)
        data[start : start + 4] = struct.pack("<I", (old + int(random.integers(-64, 65))) & 0xFFFFFFFF)
    else:
        data[start : start + 4] = data[source : source + 4]
    return data


def _varint(random: Random, data: bytearray) -> bytearray:
    """A byte, as a protobuf's length or tag may be, becomes a number of several bytes."""
    start = _place(random, data)
    data[start : start + 1] = chosen(random, (b"\x80\x01", b"\xff\xff\xff\xff\x0f", b"\xff" * 9 + b"\x01", b"\x00"))
    return data


def _cut(random: Random, data: bytearray) -> bytearray:
    start = _place(random, data)
    del data[start : start + int(random.integers(1, 65))]
    return data


def _doubled(random: Random, data: bytearray) -> bytearray:
    start = _place(random, data)
    piece = data[start : start + int(random.integers(1, 257))]
    data[start:start] = piece * int(random.integers(1, 4))
    return data


def _moved(random: Random, data: bytearray) -> bytearray:
    start, target, count = _place(random, data), _place(random, data), int(random.integers(1, 129))
    data[target : target + count] = data[start : start + count]
    return data


def _truncated(random: Random, data: bytearray) -> bytearray:
    return data[: _place(random, data)]


def _blank(random: Random, data: bytearray) -> bytearray:
    start = _place(random, data)
    count = min(len(data) - start, int(random.integers(1, 1025)))
    data[start : start + count] = bytes([chosen(random, (0, 0xFF, 0x20))]) * count
    return data


def _spliced(random: Random, data: bytearray, other: bytes) -> bytearray:
    """The front of one file and the back of another."""
    return data[: _place(random, data)] + bytearray(other)[_place(random, bytearray(other) or data) :]


MUTATIONS: tuple[Mutation, ...] = (
    _flip, _flip, _noise, _length, _length, _offset, _offset, _varint, _cut, _doubled, _moved, _truncated, _blank,
)  # fmt: skip
