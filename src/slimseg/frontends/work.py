"""How much a reader computes for one file, in proportion to what is really in it.

A file of a few hundred bytes can ask for constants of gigabytes, for the same tensor to be worked on a thousand times,
or for one weight to be copied into every layer. Each alone is within bounds; it is the sum that a `Work` counts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn

from slimseg.errors import ModelError

LARGEST_CONSTANT = 1 << 24  # values of one constant that is worked out
_COMPUTED = 1 << 25  # values read and made while constants are worked out, and for every byte of the file:
_COMPUTED_PER_BYTE = 8
_STORED = 1 << 22  # values of all layers, and for every byte of the file:
_STORED_PER_BYTE = 8
_MOST_STORED = 1 << 27  # half a GiB; a larger file may fill twice as many values as it has bytes


class Work:
    """What one file may still cost.

    Args:
        subject: who messages speak of, if the caller does not say it anyway: "model.onnx ".
        size_bytes: of the file, with what it keeps beside itself.
    """

    def __init__(self, subject: str, size_bytes: int) -> None:
        self._subject = subject
        self._computed_left = _COMPUTED + _COMPUTED_PER_BYTE * size_bytes
        self._stored_left = min(_STORED + _STORED_PER_BYTE * size_bytes, max(_MOST_STORED, 2 * size_bytes))

    def compute(self, *counts: int) -> None:
        """So many values are read or made. To be called before they are made.

        Raises:
            ModelError: that is more work than any network needs.
        """
        self._computed_left -= sum(counts)
        if self._computed_left < 0:
            raise ModelError(
                f"{self._subject}works out more constants than any network has weights: export it again, simplified"
            )

    def store(self, layer: nn.Module) -> None:
        """The layer becomes part of the network.

        Raises:
            ModelError: all layers together hold far more numbers than the file.
        """
        self._stored_left -= sum(value.numel() for value in (*layer.parameters(), *layer.buffers()))
        if self._stored_left < 0:
            raise ModelError(f"{self._subject}describes layers of many times its own size: refused")


def broadcast_count(shapes: Sequence[tuple[int, ...]]) -> int:
    """How many values the arithmetic of tensors of these shapes gives; numpy's own error where they do not fit."""
    import numpy as np

    return math.prod(int(length) for length in np.broadcast_shapes(*shapes))
