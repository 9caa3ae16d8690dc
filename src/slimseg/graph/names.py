"""Names: what a source calls a layer becomes a legal, unused name of a node that a reader still recognises."""

from __future__ import annotations

import keyword
import re
from collections.abc import Container

from torch import fx, nn

_LONGEST = 100  # characters
# What a name would mean in the module that it is a layer of, or in that module's generated code.
_TAKEN = frozenset((*keyword.kwlist, *dir(nn.Module()), *dir(fx.GraphModule), "self", "torch"))


def node_name(text: str) -> str:
    """`conv2d/BiasAdd;bias:0` as `conv2d_BiasAdd`: letters, digits and underscores, not beginning with a digit.

    A name that means something else in Python or in every module (`self`, `forward`) becomes `layer_forward`.
    """
    first = text.split(";")[0].removesuffix(":0")
    name = re.sub(r"\W+", "_", first, flags=re.ASCII).strip("_")[:_LONGEST]
    return name if name[:1].isalpha() and name not in _TAKEN else f"layer_{name}"


def unused(wanted: str, taken: Container[str]) -> str:
    """`wanted`, with a number behind it where that is taken."""
    name, number = wanted, 1
    while name in taken:
        number += 1
        name = f"{wanted}_{number}"
    return name
