"""One attempt at a smaller network, deployed, measured, and held against the budget."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from slimseg.graph.graph import Graph
from slimseg.planning import deploy
from slimseg.planning.budget import Budget
from slimseg.planning.plan import Plan
from slimseg.results import BudgetCheck
from slimseg.runtimes import runtime


@dataclass(frozen=True)
class Candidate:
    """A deployed file, how it came about, and what it was asked to be."""

    plan: Plan
    student: Graph  # trained, in its plain form
    graph: Graph  # what the file says
    float_path: Path
    path: Path
    accuracy: deploy.Accuracy
    speedup: float  # times faster than the original in float32
    original_accuracy: deploy.Accuracy
    budget: Budget

    @property
    def drop(self) -> float:
        """Points of mIoU lost; without labels, percent of pixels that changed class."""
        if self.accuracy.miou is not None and self.original_accuracy.miou is not None:
            return self.original_accuracy.miou - self.accuracy.miou
        return 100 - (self.accuracy.agreement or 0.0)

    @property
    def checks(self) -> tuple[BudgetCheck, ...]:
        """Every line of the budget."""
        unit = "points of mIoU" if self.accuracy.miou is not None else "% of pixels changed"
        most, drop = self.budget.max_drop, self.drop
        accurate = BudgetCheck("max_drop", f"at most {most:g} {unit}", deploy.points(drop, most), drop <= most)
        return (accurate, *deploy.size_and_speed(self.budget, runtime.size_bytes(self.path), self.speedup))

    @property
    def holds(self) -> bool:
        return all(check.met for check in self.checks)

    @property
    def rank(self) -> tuple[int, float]:
        """More of the budget met, then less lost."""
        return sum(check.met for check in self.checks), -self.drop
