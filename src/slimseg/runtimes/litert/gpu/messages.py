"""Reads what LiteRT's GPU delegate prints on standard error, the only place where it says what it does not take."""

from __future__ import annotations

import re
from dataclasses import dataclass

_ADAPTER = re.compile(r"Selected adapter: (?P<name>.+?), arch=.*adapterType=(?P<kind>.*)")
_REFUSALS = "Following operations are not supported by GPU delegate:"
_SOME = re.compile(r"^(\d+) operations will run on the GPU, and the remaining (\d+) operations will run on the CPU")
_NONE = re.compile(r"^No operations will run on the GPU, and all (\d+) operations will run on the CPU")
_REFUSAL = re.compile(r"^(?P<op>[^:]+): (?P<reason>.*)$")
_FATAL = re.compile(r"F\d{4} \S+ +\d+ \S+\] (?P<said>[^/]+)")
_ENDED = re.compile(r"the native runtime crashed \((?P<said>[^)]*)\)")
_FAULT = re.compile(r"^(?:ERROR: |Warning: |E\d{4} \S+ +\d+ \S+\] )(?:\[[^]]*\] )?(?P<said>.+)")
_DOUBT = re.compile(r"^W\d{4} \S+ +\d+ \S+\] (?P<said>Shape mismatch.*)|.*(?P<invalid>Validation error.*)")
_WHERE = re.compile(r"^\[[\w./]+:\d+\]$|^=== ")  # a line that only says where in the source


@dataclass(frozen=True)
class Refusal:
    """One line of the delegate's list: the type of an operator, and why it does not take it."""

    op: str
    reason: str


@dataclass(frozen=True)
class Said:
    """What the delegate printed while it compiled a file."""

    adapter: str = ""  # the GPU, or what stands for it
    is_software: bool = False
    refusals: tuple[Refusal, ...] = ()
    taken: int | None = None  # number of operators on the GPU; None if it said nothing, as when it takes all
    faults: tuple[str, ...] = ()  # other errors
    doubts: tuple[str, ...] = ()  # what it found wrong in its own programs, before it went on


def read(text: str) -> Said:
    """What the printed `text` says."""
    lines = [line.strip() for line in text.splitlines()]
    found = next((match for line in lines if (match := _ADAPTER.search(line))), None)
    start, end, taken = _listed(lines)
    others = [line for line in (*lines[:start], *lines[end + 1 :]) if _REFUSALS not in line]
    listed = (_REFUSAL.match(line) for line in lines[start:end])
    doubts = (match for line in others if (match := _DOUBT.match(line)))
    return Said(
        adapter=found["name"] if found else "",
        is_software="cpu" in (found["kind"].lower() if found else ""),
        refusals=tuple(Refusal(match["op"].strip(), match["reason"].strip()) for match in listed if match),
        taken=taken,
        faults=_faults(others),
        doubts=tuple(dict.fromkeys(match["said"] or match["invalid"] for match in doubts)),
    )


def crash(text: str) -> str:
    """What a failed check said that ended the process, else how it ended, from the message of a RuntimeFailure."""
    if found := _FATAL.search(text) or _ENDED.search(text):
        return found["said"].strip()
    return text.partition("; it printed")[0]


def _listed(lines: list[str]) -> tuple[int, int, int | None]:
    """First line of the list of refusals and the line after its last, and how many operators run on the GPU."""
    start = next((number + 1 for number, line in enumerate(lines) if _REFUSALS in line), len(lines))
    for number, line in enumerate(lines):
        if match := _SOME.match(line) or _NONE.match(line):
            return min(start, number), number, int(match[1]) if _SOME.match(line) else 0
    return start, start, None


def _faults(lines: list[str]) -> tuple[str, ...]:
    said = (match["said"].strip() for line in lines if (match := _FAULT.match(line)))
    return tuple(dict.fromkeys(each for each in said if not _WHERE.match(each)))
