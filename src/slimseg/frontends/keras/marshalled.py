"""Reads a code object from Python's marshal format as plain numbers, strings and tuples, within bounds.

`marshal.loads` must not see untrusted bytes (they can crash the interpreter), and reads only its own Python's version.
The format: https://github.com/python/cpython/blob/3.13/Python/marshal.c. Three layouts of code objects are supported:

    3.6, 3.7    argcount kwonly nlocals stacksize flags             code consts names varnames freevars cellvars ...
    3.8 - 3.10  argcount posonly kwonly nlocals stacksize flags     the same
    3.11 -      argcount posonly kwonly stacksize flags             code consts names localsplusnames kinds ...
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from slimseg.errors import ModelError

_MAX_DEPTH = 20
_MAX_OBJECTS = 100_000
_SHARED = 0x80  # flag: later references may refer to this object
_SINGLETONS = {"N": None, "F": False, "T": True, ".": ...}
_FREE = 0x80  # marks names of 3.11 and later that come from the enclosing function


@dataclass(frozen=True)
class Code:
    """`variables`: the names that LOAD_FAST indexes; `cells`: those that LOAD_DEREF indexes; `free`: closure names."""

    is_new: bool  # whether it is from Python 3.11 or later
    argument_names: tuple[str, ...]
    code: bytes
    constants: tuple[Any, ...]
    names: tuple[str, ...]
    variables: tuple[str, ...]
    cells: tuple[str, ...]
    free: tuple[str, ...]


def parse(data: bytes) -> Code:
    """Read one code object.

    Raises:
        ModelError: the bytes are no code object of a known layout.
    """
    try:
        code = _Reader(data).read()
    except (struct.error, IndexError, UnicodeDecodeError, ValueError, TypeError) as error:
        raise ModelError("its stored code cannot be read") from error
    if not isinstance(code, Code):
        raise ModelError("its stored code is not a function")
    return code


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0
        self.shared: list[Any] = []
        self.sizes: list[int] = []  # for each shared object: objects in it, counting repeated ones each time
        self.count = 0  # objects so far, counted in the same way

    def read(self, depth: int = 0) -> Any:
        if depth > _MAX_DEPTH:
            raise ValueError("nested too deeply")
        tag, before = self._take(1)[0], self.count
        kind, place = chr(tag & ~_SHARED), len(self.shared)
        if tag & _SHARED and kind != "r":
            self.shared.append(None)
            self.sizes.append(0)
        value = self._value(kind, depth)
        self.count += 1
        if self.count > _MAX_OBJECTS:
            raise ValueError("it holds the same objects repeatedly")
        if tag & _SHARED and kind != "r":
            self.shared[place], self.sizes[place] = value, self.count - before
        return value

    def _value(self, kind: str, depth: int) -> Any:
        if kind in _SINGLETONS:
            return _SINGLETONS[kind]
        if kind == "r":
            place = self._int()
            self.count += self.sizes[place]
            return self.shared[place]
        if kind == "i":
            return self._int()
        if kind == "l":
            return self._long()
        if kind == "g":
            return float(struct.unpack("<d", self._take(8))[0])
        if kind == "s":
            return self._take(self._int())
        if kind in "utaA":
            return self._take(self._int()).decode("utf-8", "surrogatepass")
        if kind in "zZ":
            return self._take(self._take(1)[0]).decode("latin-1")
        if kind in ")([":
            count = self._take(1)[0] if kind == ")" else self._int()
            if count > len(self.data):
                raise ValueError("more items than bytes")
            return tuple(self.read(depth + 1) for _ in range(count))
        if kind == "c":
            return self._code(depth)
        raise ValueError(f"type {kind!r}")

    def _take(self, count: int) -> bytes:
        if count < 0 or self.at + count > len(self.data):
            raise ValueError("it ends too early")
        self.at += count
        return self.data[self.at - count : self.at]

    def _int(self) -> int:
        return int(struct.unpack("<i", self._take(4))[0])

    def _long(self) -> int:
        count = self._int()
        digits = [struct.unpack("<H", self._take(2))[0] for _ in range(min(abs(count), 64))]
        value = sum(int(digit) << (15 * place) for place, digit in enumerate(digits))
        return -value if count < 0 else value

    def _code(self, depth: int) -> Code:
        counts = [self._int() for _ in range(5)]
        if chr(self.data[self.at] & ~_SHARED) != "s":
            counts.append(self._int())
        code, constants, names, variables, kinds = (self.read(depth + 1) for _ in range(5))
        is_new = isinstance(kinds, bytes)
        # The remaining fields do not affect what the code does; they are read to keep later references correct.
        rest = [self.read(depth + 1) for _ in range(3)]
        free = kinds if not is_new else tuple(n for n, k in zip(variables, kinds, strict=True) if k & _FREE)
        cells = variables if is_new else (*rest[0], *free)
        self._int()
        for _ in range(2 if is_new else 1):
            self.read(depth + 1)
        return Code(is_new, variables[: counts[0]], code, constants, names, variables, cells, free)
