"""Labels for a network's outputs: keys of a mapping, fields of a tuple, or numbers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

DEEPEST = 20  # most levels of nested structures
_LEAF = "0"


def labels_of(module_calls: Any, count: int) -> list[str]:
    """Labels of the `count` values that an exported program returns, in order: `out`, `aux`, `2.0`.

    The labels come from the tree specification, which the file stores as text. Only its keys are read, since torch's
    reader would import the classes that it names. If it cannot be understood, the values are numbered.
    """
    numbers = [str(index) for index in range(count)]
    try:
        (entry,) = [call for call in module_calls if call["fqn"] == ""]
        _, tree = json.loads(entry["signature"]["out_spec"])
        labels = list(_leaves(tree, ""))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return numbers
    return labels if len(labels) == count == len(set(labels)) else numbers


def _leaves(tree: Any, path: str, depth: int = 0) -> Iterator[str]:
    children = tree["children_spec"]
    if tree["type"] is None or depth > DEEPEST:
        yield path or _LEAF
        return
    keys = _keys(tree["context"], len(children))
    for key, child in zip(keys, children, strict=True):
        yield from _leaves(child, f"{path}.{key}" if path else key, depth + 1)


def _keys(context: Any, count: int) -> list[str]:
    """The keys of a tree node's children; numbers if it has none."""
    keys = json.loads(context) if isinstance(context, str) else None
    if (
        isinstance(keys, list)
        and len(keys) == count
        and all(isinstance(key, str) and key.isprintable() for key in keys)
    ):
        return keys
    return [str(index) for index in range(count)]


def tensors_of(value: Any, path: str = "", depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    """Every tensor that a module returned, with its label."""
    if isinstance(value, Tensor):
        yield path or _LEAF, value
    elif depth <= DEEPEST:
        for key, child in _children(value):
            yield from tensors_of(child, f"{path}.{key}" if path else key, depth + 1)


def _children(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        yield from ((str(key), child) for key, child in value.items())
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        yield from zip(value._fields, value, strict=True)
    elif isinstance(value, list | tuple):
        yield from ((str(index), child) for index, child in enumerate(value))
    elif hasattr(value, "__dataclass_fields__"):
        yield from ((name, getattr(value, name)) for name in value.__dataclass_fields__)
