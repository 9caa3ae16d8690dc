"""Makes the names of a file's tensors unique: ranges are stored by name, and some converters use a name twice."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any


def make_unique(model: Any) -> None:
    """Rename every tensor of a `ModelT` that has no name or that of an earlier tensor; in place."""
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
