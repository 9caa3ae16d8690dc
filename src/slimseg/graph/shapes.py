"""Arithmetic on shapes (NCHW), kernel sizes and padding."""

from __future__ import annotations

from typing import Any

Shape = tuple[int, ...]


def pair(value: Any) -> tuple[int, int]:
    """(height, width) of a kernel size or stride that torch's layers store as one int or as two."""
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))


def same_padding(length: int, kernel: int, stride: int, dilation: int = 1) -> tuple[int, int]:
    """(before, after): the padding in pixels that TensorFlow's SAME adds to a side of `length` pixels.

    The result has ⌈length / stride⌉ pixels; if the padding is odd, its extra pixel comes after.
    """
    total = max((-(-length // stride) - 1) * stride + (kernel - 1) * dilation + 1 - length, 0)
    return total // 2, total - total // 2
