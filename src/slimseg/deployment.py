"""What a file is made for. One value says it in budgets, plans, prices, proofs, exports and results."""

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

    `runtimes.registry.deployment` makes one of a user's words and checks them; which precisions and processors there
    are is the runtime's to say (`runtimes.runtime.Runtime`).
    """

    runtime: str = DEFAULT_RUNTIME  # a name in `runtimes.registry`
    precision: Precision = "float32"  # "float16": weights in 16 bits, and arithmetic where the processor has it
    processor: str = CPU
    device: str = THIS_MACHINE
    threads: int = 1  # of the runtime

    def __str__(self) -> str:
        """In words, as far as it is not what is usual: the runtime, and "int8"."""
        return f"{self.runtime} int8" if self.precision == "int8" else self.runtime


USUAL = Deployment()
