"""How far an opened network's outputs are from those of the runtime that its source belongs to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from torch import Tensor


class OwnRuntime(Protocol):
    """Runs the file or module that a network was opened from, in the runtime that it belongs to."""

    @property
    def name(self) -> str:
        """The runtime's name in messages, such as "Keras" or "PyTorch"."""

    @property
    def is_half(self) -> bool:
        """Whether it computes in 16 bits."""

    def outputs(self, images: Iterable[Tensor]) -> Iterator[list[np.ndarray[Any, Any]]]:
        """For each preprocessed NCHW image all outputs, in the runtime's own layout.

        Raises:
            SlimsegError: the runtime is not available here, refuses the source or crashes.
        """


@dataclass(frozen=True)
class SourceCheck:
    """The result of comparing outputs on noise or on images, or the reason why they were not compared."""

    runtime: str = ""  # its name in messages, such as "PyTorch"; empty if nothing was compared
    relative_difference: float = 0.0  # the largest difference of any value, as a share of the largest value
    differing_percent: float = 0.0  # share of the pixels whose class differs, 0-100
    images: int = 0  # number of images compared; 0: one image of noise instead
    reason: str = ""  # why nothing was compared

    def __str__(self) -> str:
        if self.reason:
            return f"outputs were not compared with the source's own runtime: {self.reason}"
        on = f" on {self.images} image{'s' * (self.images > 1)}" if self.images else ""
        return (
            f"outputs equal {self.runtime}'s{on} within {self.relative_difference:.1g} of the largest value, "
            f"{self.differing_percent:.2f}% of the pixels have another class"
        )
