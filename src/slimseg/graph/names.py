"""Node names: legal and unused, made from a layer's name in the source so that a reader still recognises it."""

from __future__ import annotations

import builtins
import keyword
import re
from collections.abc import Container

from torch import fx, nn

_LONGEST = 100  # characters
_READ = 10_000  # characters read of a layer's name in the source: a file may hold a name of any length
# Names that already mean something else in the module that holds the layers, or in the module's generated code.
_OF_FX = ("self", "inf", "nan", "torch", "device", "fx_pytree", "pytree")
_TAKEN = frozenset((*keyword.kwlist, *dir(builtins), *dir(nn.Module()), *dir(fx.GraphModule), *_OF_FX))


def node_name(text: str) -> str:
    """`conv2d/BiasAdd;bias:0` as `conv2d_BiasAdd`: letters, digits and underscores, not beginning with a digit.

    A name that means something else in Python or in every module (`self`, `forward`) becomes `layer_forward`.
    """
    first = text[:_READ].split(";")[0].removesuffix(":0")
    return legal(re.sub(r"\W+", "_", first, flags=re.ASCII).strip("_")[:_LONGEST])


def legal(name: str) -> str:
    """`name` if it begins with a letter and is not reserved, otherwise `name` with `layer_` before it."""
    return name if name[:1].isalpha() and name not in _TAKEN else f"layer_{name}"


def unused(wanted: str, taken: Container[str]) -> str:
    """`wanted`, with a number appended if that name is taken."""
    name, number = wanted, 1
    while name in taken:
        number += 1
        name = f"{wanted}_{number}"
    return name


class Names:
    """Gives out names without repetition, quickly even if a file has many layers of the same name."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._numbers: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._taken)

    def new(self, wanted: str) -> str:
        """`wanted`, with a number appended if that name is taken."""
        name = wanted
        while name in self._taken:
            number = self._numbers[wanted] = self._numbers.get(wanted, 1) + 1
            name = f"{wanted}_{number}"
        self._taken.add(name)
        return name
