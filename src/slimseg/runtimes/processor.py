"""The interface of a phone's processor beside the CPU: which layers it takes, and, where it can be asked, its numbers.

A processor that is not in this machine is asked all the same if its delegate, compiler or simulator runs here. Such a
processor is never timed: its `place` says which layers it takes, and `predict` what it computes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from slimseg.errors import Unsupported
from slimseg.results.export import Departure
from slimseg.results.placement import Placement


class Processor(ABC):
    """One processor of a runtime. Instances hold no state beyond their settings, and can be pickled.

    Attributes:
        name: name on the command line and in results, such as "gpu" or "npu:sm8750".
        title: name in messages.
    """

    name: str
    title: str

    @abstractmethod
    def missing(self) -> str:
        """How to install what its own verdict needs; empty if all is here. Without it, `place` uses a static check."""

    def answers(self) -> str:
        """What gives its own verdict on this machine, such as a driver or a compiler; empty if nothing does."""
        return "" if self.missing() else self.title

    @abstractmethod
    def place(self, path: Path) -> Placement:
        """Which layers of a file it takes, and why not the others. Native code runs in a child process.

        Raises:
            ModelError: the file is damaged.
            UserError: what it needs is not installed, and there is no static check.
            RuntimeFailure: its driver or compiler crashed or ran out of time.
        """

    def partition(self, path: Path) -> Placement:
        """As `place`, but without what a compiler says of the file, which takes longer."""
        return self.place(path)

    def with_driver(self, path: Path) -> Processor:
        """The same processor through a Vulkan driver that the user names; one without drivers stays as it is."""
        return self

    @property
    def computes(self) -> bool:
        """Whether `predict` works on this machine."""
        return False

    @property
    def is_timed(self) -> bool:
        """Whether times of this machine are times of this processor; never true for software drivers and simulators."""
        return False

    @property
    def halves(self) -> bool:
        """Whether it computes float networks in float16 on phones: larger values than 65504 become infinite there."""
        return False

    def first_departure(self, path: Path, image: NDArray[Any]) -> Departure | None:
        """The first layer whose values depart from the CPU's on one input (1, H, W, C) in the file's own type.

        None if none does, or if this processor does not show which.

        Raises:
            ModelError, RuntimeFailure: as `place` and `predict`.
        """
        return None

    def predict(
        self, path: Path, inputs: NDArray[Any], threads: int = 1, timeout_s: float | None = None
    ) -> NDArray[Any]:
        """As `Runtime.predict`, with the processor's own arithmetic.

        Raises:
            Unsupported: it cannot compute on this machine; the message says why.
            RuntimeFailure: it refused the file, crashed or ran out of time.
        """
        raise Unsupported(f"{self.title} cannot compute on this machine: {self.missing() or 'it has no simulator'}")
