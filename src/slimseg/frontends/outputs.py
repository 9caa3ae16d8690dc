"""Chooses which of a network's outputs to use: the one that the user names, else the likeliest, with a note."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from slimseg.errors import ModelError

PREFERRED = ("out", "logits")  # the names that torchvision and transformers use


@dataclass(frozen=True)
class Output:
    """An output's name in the model, and its shape: NCHW for a map, (1, height, width) for a mask."""

    name: str
    shape: tuple[int, ...]

    @property
    def pixels(self) -> int:
        """Height times width; 0 if the output is neither a map nor a mask."""
        return math.prod(self.shape[-2:]) if len(self.shape) in (3, 4) else 0


def choose(outputs: Sequence[Output], wanted: str | int | None = None) -> tuple[int, str | None]:
    """Index of the output to use, and a note for the user if the choice was made here among several.

    `wanted` is a name or an index. Without it, the output called `out` or `logits` is taken, else the 4-dimensional map
    with the most pixels, else the output with the most pixels; among equals the first.

    Raises:
        ModelError: there is no output, or none has the name or index `wanted`.
    """
    if not outputs:
        raise ModelError("returns nothing that depends on the image")
    names = [output.name for output in outputs]
    listed = ", ".join(f"{output.name} {output.shape}" for output in outputs)
    if wanted is not None:
        index = _wanted(names, str(wanted))
        if index is None:
            raise ModelError(f"has no output {str(wanted)!r}: `output` can be one of {listed}")
        return index, None
    index = max(range(len(outputs)), key=lambda each: (*_rank(outputs[each]), -each))
    if len(outputs) == 1:
        return index, None
    return index, f"it has {len(outputs)} outputs ({listed}): {names[index]} is used, `output` NAME selects another"


def _wanted(names: Sequence[str], wanted: str) -> int | None:
    if wanted in names:
        return names.index(wanted)
    return int(wanted) if wanted.isdecimal() and int(wanted) < len(names) else None


def _rank(output: Output) -> tuple[bool, bool, int]:
    named = output.name in PREFERRED and output.pixels > 1
    return named, len(output.shape) == 4 and output.pixels > 1, output.pixels
