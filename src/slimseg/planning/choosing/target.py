"""What a plan has to reach, in numbers of the deployed precision."""

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

MARGIN = 1.07  # aim this much past the speed-up and the size that are asked for: both are measured again in the end


@dataclass(frozen=True)
class Target:
    """A latency and a file size, each only if it was asked for.

    The latency is asked for again before each decision: where it is a share of another file's, a machine that slows
    down slows down both.
    """

    latency_ms: Callable[[], float] | None
    size_bytes: int | None

    @classmethod
    def of(cls, budget: Budget, original: Path) -> Target:
        """What a budget asks of size and speed, the latter as a share of the original file's latency."""
        speedup = budget.min_speedup
        latency = None if speedup is None else lambda: whatif.file_latency_ms(original) / speedup
        return cls(latency, budget.max_size_bytes)

    def wanted_ms(self) -> float | None:
        """The latency to aim at now."""
        return self.latency_ms() / MARGIN if self.latency_ms is not None else None

    def excess_bytes(self, graph: Graph, deployment: Deployment) -> int | None:
        """Bytes that the file of this graph is too big; 0 or less where it is small enough."""
        if self.size_bytes is None:
            return None
        with scratch.folder() as folder:
            path = whatif.written(graph, deployment, folder / "whole")
            return int(registry.size_bytes(path) - self.size_bytes / MARGIN)
