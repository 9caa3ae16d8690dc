"""Bounds how much a reader computes for one file, in proportion to the file's size.

A file of a few hundred bytes can ask for constants of gigabytes, for the same tensor to be processed a thousand times,
or for one weight to be copied into every layer. Each of these alone may be within bounds; `Work` counts their sum.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn

from slimseg.errors import ModelError

LARGEST_CONSTANT = 1 << 24  # most values of one constant that is computed
_COMPUTED = 1 << 25  # values that may be read and made to compute constants; plus, for every byte of the file:
_COMPUTED_PER_BYTE = 8
_STORED = 1 << 22  # values that all layers may hold; plus, for every byte of the file:
_STORED_PER_BYTE = 8
_MOST_STORED = 1 << 27  # most of these values, half a GiB; a larger file may store two values per byte


class Work:
    """The computing and storing that one file may still ask for.

    Args:
        subject: the start of messages, if the caller does not name the file anyway: "model.onnx ".
        size_bytes: size of the file and of the data files beside it.
    """

    def __init__(self, subject: str, size_bytes: int) -> None:
        self._subject = subject
        self._computed_left = _COMPUTED + _COMPUTED_PER_BYTE * size_bytes
        self._stored_left = min(_STORED + _STORED_PER_BYTE * size_bytes, max(_MOST_STORED, 2 * size_bytes))

    def compute(self, *counts: int) -> None:
        """Count values that are read or made. Call it before they are made.

        Raises:
            ModelError: this is more work than any network needs.
        """
        self._computed_left -= sum(counts)
        if self._computed_left < 0:
            raise ModelError(
                f"{self._subject}computes more constants than any network has weights: simplify it and export it again"
            )

    def store(self, layer: nn.Module) -> None:
        """Count the values of a layer that becomes part of the network.

        Raises:
            ModelError: all layers together hold far more numbers than the file.
        """
        self._stored_left -= sum(value.numel() for value in (*layer.parameters(), *layer.buffers()))
        if self._stored_left < 0:
            raise ModelError(f"{self._subject}describes layers many times larger than the file: refused")


def broadcast_count(shapes: Sequence[tuple[int, ...]]) -> int:
    """Number of values in the result of broadcasting these shapes; numpy raises ValueError if they do not fit."""
    import numpy as np

    return math.prod(int(length) for length in np.broadcast_shapes(*shapes))
