"""One attempt at a smaller network: deployed, measured, and compared with the budget."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from slimseg.deployment import Deployment
from slimseg.graph.graph import Graph
from slimseg.planning.choosing import ranking
from slimseg.planning.choosing.budget import Budget
from slimseg.planning.choosing.plan import Plan
from slimseg.planning.running import deploy
from slimseg.report import wording
from slimseg.results import BudgetCheck, DeployedForm
from slimseg.runtimes import registry
from slimseg.training.metrics import Accuracy


@dataclass(frozen=True)
class Candidate:
    """A deployed file, the plan that led to it, and the budget that it has to meet."""

    plan: Plan
    student: Graph  # the trained network, before the rewrites that follow training
    graph: Graph  # the network that the file contains
    float_path: Path
    path: Path
    accuracy: Accuracy
    speedup: float  # times faster than the original in float32
    original_accuracy: Accuracy
    budget: Budget
    deployment: Deployment
    form: str = "trained"  # description for the user, e.g. "exact edits, int8"
    trained: bool = True  # whether any weight was trained

    @property
    def drop(self) -> float:
        """Points of mIoU lost; without labels, percent of pixels that changed class."""
        if self.accuracy.miou is not None and self.original_accuracy.miou is not None:
            return self.original_accuracy.miou - self.accuracy.miou
        return 100 - (self.accuracy.agreement or 0.0)

    @property
    def checks(self) -> tuple[BudgetCheck, ...]:
        """Every bound of the budget, compared with this file."""
        unit = "points of mIoU" if self.accuracy.miou is not None else "% of pixels changed"
        most, drop = self.budget.max_drop, self.drop
        accurate = BudgetCheck("max_drop", f"at most {most:g} {unit}", deploy.points(drop, most), drop <= most)
        return (accurate, *deploy.size_and_speed(self.budget, registry.size_bytes(self.path), self.speedup))

    @property
    def holds(self) -> bool:
        return all(check.met for check in self.checks)

    @property
    def rank(self) -> ranking.Rank:
        """Sort key: the candidate with the largest rank fits the budget best."""
        ready = self.trained or all(edit.site.needs == "nothing" or edit.site.whole for edit in self.plan.edits)
        return ranking.rank(self.budget, self.drop, self.speedup, registry.size_bytes(self.path), ready)

    @property
    def sentence(self) -> str:
        """The form with its drop and its speed-up, and its size if the budget bounds that."""
        facts = [f"{wording.budget_name(check)} {check.got}" for check in self.checks]
        speed = [] if self.budget.min_speedup else [f"{self.speedup:.1f}x faster"]
        return f"{self.form}: {', '.join([*facts, *speed])}"

    def told(self, chosen: bool) -> DeployedForm:
        """The candidate as a result for the user; `chosen`: whether it is the run's result."""
        return DeployedForm(
            form=self.form,
            trained=self.trained,
            deployment=replace(self.deployment, precision=registry.of(self.path).precision(self.path)),
            input_size=self.graph.input_size,
            speedup=self.speedup,
            size_bytes=registry.size_bytes(self.path),
            miou=self.accuracy.miou,
            agreement=self.accuracy.agreement,
            drop=self.drop,
            budget_met=self.holds,
            chosen=chosen,
        )
