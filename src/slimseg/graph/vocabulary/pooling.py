"""Pooling: one value for each window of a channel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import nn

from slimseg.graph.shapes import Shape, pair
from slimseg.graph.vocabulary.operator import Operator, kinds
from slimseg.graph.vocabulary.rules import same_channels, window_counts


def reached_padding(
    layer: nn.MaxPool2d | nn.AvgPool2d, size: Sequence[int], windows: Sequence[int]
) -> list[tuple[int, int]]:
    """(before, after) in height and width: the pixels outside the input that the windows cover.

    Windows need not cover all of the layer's padding, and with ceil_mode they can reach beyond it.


    Args:
        size: height and width of the input in pixels.
        windows: number of windows in height and width, which is the size of the output.
    """
    sides = zip(size, windows, *map(pair, (layer.kernel_size, layer.stride, layer.padding)), strict=True)
    return [
        (before, max(0, (count - 1) * stride + kernel - length - before))
        for length, count, kernel, stride, before in sides
    ]


def _windows_shape(layer: nn.MaxPool2d | nn.AvgPool2d, shapes: Sequence[Shape]) -> Shape:
    return (*shapes[0][:2], *window_counts(layer, shapes[0], getattr(layer, "dilation", 1)))


def _adaptive_shape(layer: nn.AdaptiveAvgPool2d, shapes: Sequence[Shape]) -> Shape:
    return (*shapes[0][:2], *pair(layer.output_size))


def window_means(length: int, windows: int) -> np.ndarray[Any, Any]:
    """Weights (windows, length): window i of torch's adaptive pooling averages pixels ⌊i·n/w⌋ to ⌈(i+1)·n/w⌉ - 1.

    The windows of a map are the products of those of its rows and those of its columns.
    """
    result = np.zeros((windows, length), np.float32)
    for i in range(windows):
        start, stop = i * length // windows, -(-(i + 1) * length // windows)
        result[i, start:stop] = 1 / (stop - start)
    return result


OPERATORS = (
    Operator(nn.MaxPool2d, _windows_shape, channels=same_channels, scales=same_channels),
    Operator(nn.AvgPool2d, _windows_shape, channels=same_channels, scales=same_channels),
    Operator(nn.AdaptiveAvgPool2d, _adaptive_shape, channels=same_channels, scales=same_channels),
)
POOLINGS = kinds(OPERATORS)
