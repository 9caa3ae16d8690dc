"""Names: what a source calls a layer becomes a legal, unused name of a node that a reader still recognises."""

from __future__ import annotations

import re
from collections.abc import Container

_LONGEST = 100  # characters


def node_name(text: str) -> str:
    """`conv2d/BiasAdd;bias:0` as `conv2d_BiasAdd`: letters, digits and underscores, not beginning with a digit."""
    first = text.split(";")[0].removesuffix(":0")
    name = re.sub(r"\W+", "_", first, flags=re.ASCII).strip("_")[:_LONGEST]
    return name if name[:1].isalpha() else f"layer_{name}"


def unused(wanted: str, taken: Container[str]) -> str:
    """`wanted`, with a number behind it where that is taken."""
    name, number = wanted, 1
    while name in taken:
        number += 1
        name = f"{wanted}_{number}"
    return name
