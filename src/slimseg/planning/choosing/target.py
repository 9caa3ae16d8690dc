"""The target of a plan: latency and file size in the deployed precision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from slimseg.deployment import Deployment
from slimseg.disk import scratch
from slimseg.graph.graph import Graph
from slimseg.planning.choosing.budget import Budget
from slimseg.planning.pricing import whatif
from slimseg.runtimes import registry

MARGIN = 1.07  # factor by which plans exceed the required speed-up and size, as the final measurements may differ


@dataclass(frozen=True)
class Target:
    """A latency and a file size; each is None if the budget does not bound it.

    `latency_ms` is a function that is called before each decision. It times the original file anew, so that the target
    grows with all other latencies if the machine slows down.
    """

    latency_ms: Callable[[], float] | None
    size_bytes: int | None

    @classmethod
    def of(cls, budget: Budget, original: Path) -> Target:
        """The target for a budget; the latency is that of the `original` file, divided by the required speed-up."""
        speedup = budget.min_speedup
        latency = None if speedup is None else lambda: whatif.file_latency_ms(original) / speedup
        return cls(latency, budget.max_size_bytes)

    def wanted_ms(self) -> float | None:
        """The latency to reach, in milliseconds at the machine's present pace; None without target."""
        return self.latency_ms() / MARGIN if self.latency_ms is not None else None

    def excess_bytes(self, graph: Graph, deployment: Deployment) -> int | None:
        """Bytes by which this graph's file is too large, 0 or less if it is small enough; None without target."""
        if self.size_bytes is None:
            return None
        with scratch.folder() as folder:
            path = whatif.written(graph, deployment, folder / "whole")
            return int(registry.size_bytes(path) - self.size_bytes / MARGIN)
