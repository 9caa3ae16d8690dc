"""Shapes (NCHW) and sides of windows, as arithmetic."""

from __future__ import annotations

from typing import Any

Shape = tuple[int, ...]


def pair(value: Any) -> tuple[int, int]:
    """An int or two of them, as torch's layers store kernel sizes."""
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))


def same_padding(length: int, kernel: int, stride: int, dilation: int = 1) -> tuple[int, int]:
    """(before, after): what TensorFlow's SAME pads a side of `length` pixels with.

    The result has ⌈length / stride⌉ pixels; an odd pixel of padding goes behind.
    """
    total = max((-(-length // stride) - 1) * stride + (kernel - 1) * dilation + 1 - length, 0)
    return total // 2, total - total // 2
