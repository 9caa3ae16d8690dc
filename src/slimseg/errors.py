"""Every error that slimseg raises on purpose, in one tree.

    SlimsegError
    ├── UserError             exit code 2: what the user gave cannot be used as it is
    │   ├── ModelError        the model file, factory or weights
    │   │   └── UnknownOperator   an operator outside the vocabulary: the file runs, but cannot become a Graph
    │   ├── DataError         an image, a mask, or a folder of them
    │   ├── BudgetError       a budget that contradicts itself or cannot be read
    │   └── OutputError       the file or folder to which the result should be written
    ├── GraphError            a graph that breaks an invariant (a bug in slimseg or in a technique)
    ├── Unsupported           a node that a writer or a rewrite cannot handle
    └── RuntimeFailure        the native runtime refused, crashed or timed out (in its child process)

A message is one sentence: what is wrong, with which file or layer, and what to do about it.
"""

from __future__ import annotations

import re

_LONGEST_WORD, _LONGEST_SENTENCE = 300, 1500  # characters


def printable(text: str) -> str:
    """`text` on one line, with "?" for every control character and every character that a terminal cannot show.

    Names in a model file may contain any text: escape sequences that erase the screen, letters without width, marks
    that reverse the direction of writing.
    """
    return text if text.isprintable() else harmless(" ".join(text.split()))


def harmless(text: str) -> str:
    """As `printable`, but line breaks and tabs are kept."""
    return "".join(letter if letter.isprintable() or letter in "\n\t" else "?" for letter in text)


def sentence(text: str) -> str:
    """As `printable`, but shortened to a readable length: "…" replaces the middle of long words and long text.

    A name in a model file may have a million letters; its two ends usually suffice to recognise it.
    """
    words = re.sub(rf"\S{{{_LONGEST_WORD + 1},}}", lambda word: _both_ends(word[0], _LONGEST_WORD), printable(text))
    return _both_ends(words, _LONGEST_SENTENCE)


def _both_ends(text: str, length: int) -> str:
    half = length // 2
    return text if len(text) <= length else f"{text[: half - 1]}…{text[-half:]}"


def one_line(error: BaseException) -> str:
    """The first line of another library's error message, or the error's class name if the message is empty."""
    if isinstance(error, RecursionError):
        return "it nests too deeply or refers to itself"
    if isinstance(error, MemoryError):
        return "it asks for too much memory"
    first = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    return printable(first)


class SlimsegError(Exception):
    """Base of all errors that slimseg raises on purpose; makes messages printable, as they quote names from files."""

    def __init__(self, message: str = "") -> None:
        super().__init__(sentence(message))


class UserError(SlimsegError):
    """A file, folder or option that the user gave cannot be used; the command line exits with code 2."""


class ModelError(UserError):
    """The model file, factory or weights cannot be opened."""


class UnknownOperator(ModelError):
    """A model file has an operator outside slimseg's vocabulary; the file can still be profiled."""


class DataError(UserError):
    """An image, a mask or a folder of them cannot be used."""


class BudgetError(UserError):
    """A budget contradicts itself or cannot be read."""


class OutputError(UserError):
    """The result cannot be written to the given file or folder."""


class GraphError(SlimsegError):
    """A graph breaks one of the invariants in `slimseg.graph.invariants`."""


class Unsupported(SlimsegError):
    """A writer or a rewrite cannot handle a node."""


class RuntimeFailure(SlimsegError):
    """The native runtime refused a model, crashed or ran out of time."""
