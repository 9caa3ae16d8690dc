"""Which of a network's outputs is the one that segments: what the user names, else the likeliest, and that is told."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from slimseg.errors import ModelError

PREFERRED = ("out", "logits")  # torchvision's and transformers' names


@dataclass(frozen=True)
class Output:
    """An output's name in the model, and its shape: NCHW where it is a map, (1, height, width) where it is a mask."""

    name: str
    shape: tuple[int, ...]

    @property
    def pixels(self) -> int:
        """Height times width; 0 where it is no map."""
        return math.prod(self.shape[-2:]) if len(self.shape) in (3, 4) else 0


def choose(outputs: Sequence[Output], wanted: str | int | None = None) -> tuple[int, str | None]:
    """Index of the output to use, and what to tell the user where there are several.

    `wanted` is a name or an index. Without it: what is called `out` or `logits`, else the map of 4 dimensions with the
    most pixels, else whatever has most; of equal ones the first.

    Raises:
        ModelError: there is no output, or none that is `wanted`.
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
    return index, f"it has {len(outputs)} outputs ({listed}): {names[index]} is used, `output` NAME takes another"


def _wanted(names: Sequence[str], wanted: str) -> int | None:
    if wanted in names:
        return names.index(wanted)
    return int(wanted) if wanted.isdecimal() and int(wanted) < len(names) else None


def _rank(output: Output) -> tuple[bool, bool, int]:
    named = output.name in PREFERRED and output.pixels > 1
    return named, len(output.shape) == 4 and output.pixels > 1, output.pixels
