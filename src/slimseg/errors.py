"""Every error that slimseg raises on purpose, in one tree.

    SlimsegError
    ├── UserError             exit code 2: what the user gave cannot be used as it is
    │   ├── ModelError        the model file, factory or weights
    │   │   └── UnknownOperator   an operator outside the vocabulary: the file runs, but cannot become a Graph
    │   ├── DataError         an image, a mask, a folder of them
    │   ├── BudgetError       a budget that contradicts itself or cannot be read
    │   └── OutputError       the place where the result should go
    ├── GraphError            a graph that breaks an invariant (a bug of ours or of a technique)
    ├── Unsupported           a node that this writer or rewrite does not know
    └── RuntimeFailure        the native runtime refused, crashed or timed out (in its child process)

A message is one sentence: what is wrong, with which file or layer, and what to do about it.
"""

from __future__ import annotations

import re

_LONGEST_WORD, _LONGEST_SENTENCE = 300, 1500  # characters


def printable(text: str) -> str:
    """`text` on one line, with a "?" for whatever a terminal would obey or not show.

    A model file may carry any text in its names: escape sequences that erase the screen, letters without width, marks
    that turn the direction of writing.
    """
    return text if text.isprintable() else harmless(" ".join(text.split()))


def harmless(text: str) -> str:
    """As `printable`, with line breaks and tabs as they are."""
    return "".join(letter if letter.isprintable() or letter in "\n\t" else "?" for letter in text)


def sentence(text: str) -> str:
    """`printable`, and of a length that can be read: what is longer loses its middle, as both ends tell what it is.

    A name in a model file may have a million letters.
    """
    words = re.sub(rf"\S{{{_LONGEST_WORD + 1},}}", lambda word: _both_ends(word[0], _LONGEST_WORD), printable(text))
    return _both_ends(words, _LONGEST_SENTENCE)


def _both_ends(text: str, length: int) -> str:
    half = length // 2
    return text if len(text) <= length else f"{text[: half - 1]}…{text[-half:]}"


def one_line(error: BaseException) -> str:
    """The first line of what somebody else's error says, or the error's name where it says nothing."""
    if isinstance(error, RecursionError):
        return "it nests too deeply or refers to itself"
    if isinstance(error, MemoryError):
        return "it asks for too much memory"
    first = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    return printable(first)


class SlimsegError(Exception):
    """Root of everything slimseg raises on purpose. Messages quote files, so they are made readable here."""

    def __init__(self, message: str = "") -> None:
        super().__init__(sentence(message))


class UserError(SlimsegError):
    """Something the user gave cannot be used; the command line exits with code 2."""


class ModelError(UserError):
    """The model file, factory or weights cannot be opened."""


class UnknownOperator(ModelError):
    """A model file holds an operator that the vocabulary lacks; it can still be profiled."""


class DataError(UserError):
    """An image, a mask or a folder of them cannot be used."""


class BudgetError(UserError):
    """A budget contradicts itself or cannot be read."""


class OutputError(UserError):
    """The result cannot be written where it should go."""


class GraphError(SlimsegError):
    """A graph breaks one of the invariants in `slimseg.graph.invariants`."""


class Unsupported(SlimsegError):
    """A node lies outside what a writer or a rewrite can express."""


class RuntimeFailure(SlimsegError):
    """The native runtime refused a model, crashed or ran out of time."""
