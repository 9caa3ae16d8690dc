"""Decodes instructions of Python 3.6 to 3.13 into one vocabulary, for code that computes one expression.

The numbers are those of each version's `opcode.py`. Jumps, loops, imports and everything else are in no table, so code
that does more than compute one expression is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from slimseg.errors import ModelError
from slimseg.frontends.keras.marshalled import Code

_OLD = {
    1: "pop", 9: "nothing", 11: "negative", 19: "**", 20: "*", 23: "+", 24: "-", 25: "subscript", 26: "//", 27: "/",
    83: "return", 100: "constant", 101: "global", 102: "tuple", 103: "list", 106: "attribute", 116: "global",
    124: "variable", 125: "store", 131: "call", 133: "slice", 136: "cell", 141: "call_named", 160: "attribute",
    161: "call", 162: "extend",
}  # fmt: skip
_3_11 = {
    0: "nothing", 1: "pop", 2: "nothing", 9: "nothing", 11: "negative", 25: "subscript", 83: "return", 100: "constant",
    102: "tuple", 103: "list", 106: "attribute", 116: "global_shifted", 122: "operator", 124: "variable", 125: "store",
    133: "slice", 137: "cell", 149: "nothing", 151: "nothing", 160: "attribute", 162: "extend", 166: "nothing",
    171: "call", 172: "names",
}  # fmt: skip
_3_12 = {**_3_11, 26: "subscript_slice", 106: "attribute_shifted", 121: "return_constant"}
_3_13 = {
    0: "nothing", 4: "subscript_slice", 5: "subscript", 30: "nothing", 32: "pop", 34: "nothing", 36: "return",
    42: "negative", 45: "operator", 47: "list", 50: "slice", 52: "tuple", 53: "call", 57: "call_named", 62: "nothing",
    81: "extend", 82: "attribute_shifted", 83: "constant", 84: "cell", 85: "variable", 88: "two_variables",
    91: "global_shifted", 103: "return_constant", 110: "store", 149: "nothing",
}  # fmt: skip
_RESUME, _COPY_FREE_VARS = {"3.11": 151, "3.13": 149}, {"3.11": 149, "3.13": 62}
_EXTENDED = {id(_OLD): 144, id(_3_11): 144, id(_3_12): 144, id(_3_13): 71}
# How many cache entries follow LOAD_GLOBAL, LOAD_ATTR and BINARY_SUBSCR in 3.11; 3.12 has other numbers of them.
_CACHES_OF_3_11 = {116: 5, 106: 4, 25: 4}
OPERATORS = {0: "+", 2: "//", 5: "*", 8: "**", 10: "-", 11: "/"}


@dataclass(frozen=True)
class Instruction:
    name: str
    argument: int


def instructions(code: Code) -> Iterator[Instruction]:
    """The instructions of the code, one by one.

    Raises:
        ModelError: it does more than compute one expression.
    """
    table = _table(code)
    extension = 0
    for at in range(0, len(code.code) - 1, 2):
        number, argument = code.code[at], code.code[at + 1] | extension
        if number == _EXTENDED[id(table)]:
            extension = (argument << 8) & 0xFFFFFF
            continue
        extension = 0
        if number not in table:
            raise ModelError(f"its code does more than compute one expression (instruction {number})")
        name = table[number]
        if name.endswith("_shifted"):  # the lowest bit is a flag, and the index is in the other bits
            name, argument = name.removesuffix("_shifted"), argument >> 1
        yield Instruction(name, argument)


def _table(code: Code) -> dict[int, str]:
    """The version's table. Code stores no version: the first instruction shows 3.13, the caches tell 3.11 from 3.12."""
    if not code.is_new:
        return _OLD
    start = list(code.code[0:4:2])
    if start[:1] == [_RESUME["3.11"]] or start == [_COPY_FREE_VARS["3.11"], _RESUME["3.11"]]:
        return _3_11 if _is_3_11(code.code[::2]) else _3_12
    if start[:1] == [_RESUME["3.13"]] or start == [_COPY_FREE_VARS["3.13"], _RESUME["3.13"]]:
        return _3_13
    raise ModelError("its code is of a Python version that slimseg does not read (3.6 to 3.13)")


def _is_3_11(numbers: bytes) -> bool:
    for at, number in enumerate(numbers):
        if number in _CACHES_OF_3_11:
            following = numbers[at + 1 :]
            return len(following) - len(following.lstrip(b"\0")) == _CACHES_OF_3_11[number]
    return False  # without these instructions, the code means the same in both versions
