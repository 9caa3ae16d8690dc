"""Writes a shared library for x86-64 Linux that defines nothing, without a compiler.

LiteRT's plugin for Qualcomm is linked to a library of Qualcomm's audio processor (libQnnLpai.so) of which it needs no
symbol as long as it compiles for the NPU. Only Qualcomm's SDK has that library; an empty one of that name lets the
plugin load.

    offset   contents                 (System V ABI, "Object Files" and "Dynamic Linking", for 64 bits)
    0        ELF header
    64       program headers: the one segment to load, and where its dynamic section is
    176      dynamic section: where the tables below are, and the library's own name
    288      symbol table with the empty symbol that begins each
    312      hash table of one bucket, without symbols
    328      string table: an empty string, and the name
"""

from __future__ import annotations

import struct
from pathlib import Path

_HEADER, _PROGRAM_HEADER, _ENTRY, _SYMBOL = 64, 56, 16, 24  # sizes in bytes
_HEADERS_AT, _DYNAMIC_AT = _HEADER, _HEADER + 2 * _PROGRAM_HEADER
_SYMBOLS_AT = _DYNAMIC_AT + 7 * _ENTRY
_HASHES_AT = _SYMBOLS_AT + _SYMBOL
_STRINGS_AT = _HASHES_AT + 16
_SHARED_OBJECT, _X86_64, _LOAD, _DYNAMIC, _READABLE_WRITABLE, _PAGE = 3, 62, 1, 2, 6, 4096
_HASH, _STRTAB, _SYMTAB, _STRSZ, _SYMENT, _SONAME, _END = 4, 5, 6, 10, 11, 14, 0  # tags of the dynamic section


def write(path: Path) -> None:
    """Write the library to `path`; its own name is that of the file."""
    path.write_bytes(content(path.name))


def content(name: str) -> bytes:
    """The bytes of a library that calls itself `name`."""
    strings = b"\0" + name.encode() + b"\0"
    size = _STRINGS_AT + len(strings)
    header = struct.pack(
        "<16sHHIQQQIHHHHHH",
        b"\x7fELF\x02\x01\x01",  # 64 bits, little endian, version 1
        *(_SHARED_OBJECT, _X86_64, 1, 0, _HEADERS_AT, 0, 0, _HEADER, _PROGRAM_HEADER, 2, 0, 0, 0),
    )
    dynamic = [
        *((_HASH, _HASHES_AT), (_STRTAB, _STRINGS_AT), (_SYMTAB, _SYMBOLS_AT)),
        *((_STRSZ, len(strings)), (_SYMENT, _SYMBOL), (_SONAME, 1), (_END, 0)),
    ]
    return b"".join(
        [
            header,
            _segment(_LOAD, 0, size, _PAGE),
            _segment(_DYNAMIC, _DYNAMIC_AT, _ENTRY * len(dynamic), 8),
            *(struct.pack("<QQ", tag, value) for tag, value in dynamic),
            bytes(_SYMBOL),
            struct.pack("<4I", 1, 1, 0, 0),  # one bucket, one symbol
            strings,
        ]
    )


def _segment(kind: int, offset: int, size: int, alignment: int) -> bytes:
    return struct.pack("<IIQQQQQQ", kind, _READABLE_WRITABLE, offset, offset, offset, size, size, alignment)
