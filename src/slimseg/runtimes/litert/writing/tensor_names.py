"""Names that tell the tensors of a file apart: ranges go by name, and some converters give one name twice."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any


def make_unique(model: Any) -> None:
    """Give every later tensor of a `ModelT` that has another's name, or none, one of its own; in place."""
    taken = {tensor.name for graph in model.subgraphs for tensor in graph.tensors if tensor.name}
    seen: set[bytes] = set()
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            if not tensor.name or tensor.name in seen:
                tensor.name = next(each for each in _variants(tensor.name or b"tensor") if each not in taken)
            taken.add(tensor.name)
            seen.add(tensor.name)


def _variants(name: bytes) -> Iterator[bytes]:
    return (name + b"_%d" % number for number in itertools.count(1))
