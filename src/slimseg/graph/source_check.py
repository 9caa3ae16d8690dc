"""How far an opened network's outputs are from those of the runtime that its source belongs to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from torch import Tensor


class OwnRuntime(Protocol):
    """Runs the file or the module that a network was opened from as its own runtime does."""

    @property
    def name(self) -> str:
        """ "LiteRT", "onnxruntime", "PyTorch" or "Keras"."""

    @property
    def is_half(self) -> bool:
        """Whether it computes in 16 bits."""

    def outputs(self, images: Iterable[Tensor]) -> Iterator[list[np.ndarray[Any, Any]]]:
        """For each preprocessed NCHW image everything that it gives, laid out as it has it.

        Raises:
            SlimsegError: it cannot be asked here, it refuses, or it crashes.
        """


@dataclass(frozen=True)
class SourceCheck:
    """A comparison on noise or on images, or the reason why there was none."""

    runtime: str = ""  # "LiteRT", "onnxruntime", "PyTorch" or "Keras"
    relative_difference: float = 0.0  # the largest of all values, over the largest value
    differing_percent: float = 0.0  # of the pixels: another class
    images: int = 0  # that it was made on; 0: one picture of noise
    reason: str = ""  # why nothing was compared

    def __str__(self) -> str:
        if self.reason:
            return f"outputs were not compared with the source's own runtime: {self.reason}"
        on = f" on {self.images} image{'s' * (self.images > 1)}" if self.images else ""
        return (
            f"outputs as {self.runtime}'s{on} within {self.relative_difference:.1g} of the largest value, "
            f"{self.differing_percent:.2f}% of the pixels of another class"
        )
