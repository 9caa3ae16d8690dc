"""The user's budget, checked for contradictions before anything runs."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from slimseg.deployment import CPU, DEFAULT_RUNTIME, Deployment
from slimseg.errors import BudgetError
from slimseg.graph.description import OUTPUT_KINDS, OutputKind
from slimseg.results import Needs
from slimseg.runtimes import registry

NEEDS: tuple[Needs, ...] = ("nothing", "images", "labels")
_SIZE_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_TIME_UNITS = {"s": 1, "": 1, "m": 60, "h": 3600}
SHORTEST_TIME_S = 30.0


@dataclass(frozen=True)
class Budget:
    """Bounds on the deployed file, and on the search for it.

    `max_size_bytes` and `min_speedup` (over the original in float32) are None if they are not bounded. `max_drop` is in
    points of mIoU with labels, otherwise in percent of pixels that change class. `needs` is the most that an edit may
    require of the user's data. `head` None keeps the model's kind of output. `runtime` is the one for which the network
    is deployed, and on which everything is timed. `processor` names the phone's processors that have to take
    every layer of the deployed file, separated by commas: "cpu,gpu,npu:sm8750".
    """

    max_size_bytes: int | None = None
    min_speedup: float | None = None
    max_drop: float = 1.0
    needs: Needs = "labels"
    time_limit_s: float = 45 * 60
    head: OutputKind | None = None
    runtime: str = DEFAULT_RUNTIME
    processor: str = CPU

    def __post_init__(self) -> None:
        """Check the bounds.

        Raises:
            BudgetError: no file can meet a bound, or a bound contradicts another.
            UserError: there is no such runtime, or it has no such processor.
        """
        if self.max_size_bytes is not None and self.max_size_bytes < 1000:
            raise BudgetError(
                f"`max_size_bytes` {self.max_size_bytes} bytes is smaller than any network: give for example 4MB"
            )
        if self.min_speedup is not None and not (math.isfinite(self.min_speedup) and self.min_speedup >= 1):
            raise BudgetError(f"`min_speedup` {self.min_speedup:g} must be a number of at least 1")
        if not (math.isfinite(self.max_drop) and 0 <= self.max_drop <= 100):
            raise BudgetError(f"`max_drop` {self.max_drop:g} must be between 0 and 100 points")
        if self.needs not in NEEDS:
            raise BudgetError(f"`needs` {self.needs!r} must be one of {', '.join(NEEDS)}")
        registry.deployment(self.runtime, processor=self.processor)
        if self.head is not None and self.head not in OUTPUT_KINDS:
            raise BudgetError(f"`head` {self.head!r} must be one of {', '.join(OUTPUT_KINDS)}")
        if not self.time_limit_s >= SHORTEST_TIME_S:
            raise BudgetError(f"`time_limit_s` {self.time_limit_s:g}s is too short: give at least {SHORTEST_TIME_S:g}s")
        if self.needs == "nothing" and (self.min_speedup or 1) > 8:
            raise BudgetError(
                f"`min_speedup` {self.min_speedup:g} contradicts `needs` nothing: exact edits alone never "
                "reach it, so give `needs` images"
            )

    @property
    def deployment(self) -> Deployment:
        """The deployment of the unquantised network on `runtime`."""
        return registry.deployment(self.runtime, processor=self.processor)

    def allows(self, needs: Needs) -> bool:
        return NEEDS.index(needs) <= NEEDS.index(self.needs)


def parse_size(text: str) -> int:
    """Bytes of "4MB", "900 kB", "1.5MiB" or "4000000".

    Raises:
        BudgetError: the text is not a size.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", text)
    if not match or match[2].lower() not in _SIZE_UNITS:
        raise BudgetError(f"`max_size_bytes` {text!r} is not a size: give for example 4MB or 900kB")
    return int(float(match[1]) * _SIZE_UNITS[match[2].lower()])


def parse_time(text: str) -> float:
    """Seconds of "45m", "90s", "1h" or "600".

    Raises:
        BudgetError: the text is not a time.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smh]?)\s*", text)
    if not match:
        raise BudgetError(f"`time_limit_s` {text!r} is not a time: give for example 45m, 90s or 1h")
    return float(match[1]) * _TIME_UNITS[match[2]]
