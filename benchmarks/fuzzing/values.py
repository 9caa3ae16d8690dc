"""Extremes to put in the place of what a file says."""

from __future__ import annotations

from typing import Any

import numpy as np

Random = np.random.Generator

INTEGERS = (0, 1, -1, 2, 3, 7, 127, 128, 255, 256, 4096, 65535, 65536, 1 << 20, 1 << 27, (1 << 31) - 1, -(1 << 31))
LARGE_INTEGERS = (1 << 32, (1 << 63) - 1, -(1 << 63), 1 << 64, 10**30)
FLOATS = (0.0, -0.0, 1.0, -1.0, 0.5, 1e-45, 1e38, 1e308, float("inf"), float("-inf"), float("nan"))
TEXTS = (
    "", " ", "self", "forward", "x", "None", "__class__", "..", "../../../etc/passwd", "/dev/zero", "a.b.c", "1",
    "\x1b]0;owned\x07\x1b[2J", "\u202egnp.exe", "\x00", "\n\n\r", "%s%n{0}{x}", "ü" * 300, "A" * 100_000, "\ud800",
    "torch.ops.aten.from_file.default", "os.system", "builtins.eval",
)  # fmt: skip


def chosen(random: Random, options: Any) -> Any:
    """One of a sequence."""
    return options[int(random.integers(len(options)))]


def integer(random: Random, near: int | None = None) -> int:
    """An extreme; or, where a number stood there, often one that is a little beside it."""
    if near is not None and random.random() < 0.4:
        return int(chosen(random, (near + 1, near - 1, near * 2, near // 2, -near, near ^ 1)))
    return int(chosen(random, INTEGERS))


def replacement(random: Random, old: Any) -> Any:
    """Of the same kind in most cases, else of any."""
    if random.random() < 0.25:
        return chosen(random, (None, True, False, 0, -1, 1 << 62, 1.5, "", "x", [], {}, [[]], {"a": {}}, [0] * 1000))
    if isinstance(old, bool):
        return not old
    if isinstance(old, int):
        return integer(random, old) if random.random() < 0.8 else chosen(random, LARGE_INTEGERS)
    if isinstance(old, float):
        return chosen(random, FLOATS)
    if isinstance(old, str):
        return chosen(random, TEXTS)
    if isinstance(old, list):
        return chosen(random, ([], old * 2, old[:1], old[::-1], [old], old * 50 if len(old) < 100 else old))
    if isinstance(old, dict):
        return chosen(random, ({}, {**old, "": old}, {"a": old}, list(old.items())[:1]))
    return integer(random)
