"""The deployment that a file is made for: runtime, precision, processor, device and threads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Precision = Literal["float32", "float16", "int8"]
DEFAULT_RUNTIME = "litert"
CPU = "cpu"
THIS_MACHINE = "this machine"


@dataclass(frozen=True)
class Deployment:
    """A runtime, and how a network is deployed on it.

    `runtimes.registry.deployment` makes one from a user's options, and checks them. Each runtime declares which
    precisions and processors it supports (`runtimes.runtime.Runtime`).
    """

    runtime: str = DEFAULT_RUNTIME  # a name in `runtimes.registry`
    precision: Precision = "float32"  # "float16": weights in 16 bits; arithmetic, too, if the processor supports it
    processor: str = CPU  # the one that files are timed on
    others: tuple[str, ...] = ()  # further processors that have to take the file, such as "gpu" and "npu:sm8750"
    device: str = THIS_MACHINE
    threads: int = 1  # CPU threads of the runtime

    def __str__(self) -> str:
        """In words: the runtime, followed by "int8" if that is the precision."""
        return f"{self.runtime} int8" if self.precision == "int8" else self.runtime


USUAL = Deployment()
