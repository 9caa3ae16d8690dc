"""Every edit timed where it stands: in the whole network, on top of the edits before it.

A what-if of a part alone sees neither its neighbours in the caches nor what edits take from one another. Time does not
depend on weights, so all of this is known before anything is trained: predictions are corrected, and what gains nothing
in its place goes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

import numpy as np

from slimseg.errors import GraphError, Unsupported
from slimseg.graph import costs
from slimseg.graph.graph import Graph
from slimseg.planning import deploy
from slimseg.planning.exact import PlannedEdit
from slimseg.planning.plan import Plan
from slimseg.planning.whatif import Precision
from slimseg.progress import Progress
from slimseg.results import Refusal
from slimseg.runtimes import benchmark, child
from slimseg.techniques.channels import Channels

SECONDS = 120.0  # of timing, for all files that edits lead to: some edits are a hundredth of the whole
MOST_SECONDS = 10.0  # for one of them
MOST_ROUNDS = 3000
LOADS = 12  # where a file happens to lie in memory moves its time by a per cent or two: the mean of many is steady
QUIET_PERCENT = 20  # of a load's rounds are shorter than what counts


@dataclass(frozen=True)
class InPlace:
    """The network that plans are made on, the file of it before the first edit, and how files are deployed."""

    asked: Graph
    start: Path
    images: deploy.Images
    precision: Precision
    progress: Progress
    size_is_bounded: bool = False

    def paying(self, plan: Plan) -> Plan:
        """The plan with its predictions corrected, without the edits that gain nothing where they stand."""
        corrected = self.timed(plan)
        lost = [edit for edit in (*corrected.edits, *corrected.rewrites) if not _pays(edit)]
        if not lost:
            return corrected
        milder = plan
        for edit in lost:
            try:
                without = milder.without(self.asked, [edit.site])
            except (Unsupported, GraphError):
                continue  # another stands on it
            if self.size_is_bounded and _params(without) > _params(milder):
                continue  # it is there for its bytes
            milder = replace(without, refusals=(*without.refusals, _refusal(edit)))
        return self.timed(milder)

    def timed(self, plan: Plan) -> Plan:
        """The plan with its predictions corrected; what the what-ifs alone told is kept beside them."""
        every = (*plan.edits, *plan.rewrites)
        if not every:
            return plan
        self.progress.say("Predictions: every edit timed where it stands")
        with tempfile.TemporaryDirectory(prefix="slimseg-") as folder:
            stages_ms = self.time(self.stages(every, Path(folder)))
        corrected, start_ms = deploy.in_place(every, stages_ms), stages_ms[0]
        edits, rewrites = corrected[: len(plan.edits)], corrected[len(plan.edits) :]
        return replace(plan, edits=edits, rewrites=rewrites, start_ms=start_ms)

    def time(self, stages: Sequence[Path]) -> tuple[float, ...]:
        """Milliseconds of all stages, in turns, often enough to tell neighbours apart, loaded anew in between.

        Of the 24 edits of a plan for camvid_unet, timed twice, 23 came out within a tenth like this, 20 with the median
        of each load, 16 with its minimum.
        """
        loads = [self._timed_once(stages) for _ in range(LOADS)]
        return tuple(fmean(_quiet_ms(timing) for timing in each) for each in zip(*loads, strict=True))

    def _timed_once(self, stages: Sequence[Path]) -> tuple[benchmark.Timing, ...]:
        with child.Child() as process:
            seconds, rounds = min(MOST_SECONDS, SECONDS / len(stages)) / LOADS, MOST_ROUNDS // LOADS
            return benchmark.time_files(stages, seconds_per_file=seconds, within=process, most_rounds=rounds)

    def stages(self, edits: Sequence[PlannedEdit], folder: Path) -> list[Path]:
        """The file before the first edit and one after each group of edits."""
        made = deploy.write_stages(self.asked, edits, folder, self.images, self.precision, self.progress)
        return [self.start, *made]


def _quiet_ms(timing: benchmark.Timing) -> float:
    """What a file takes in the rounds that nothing disturbed: whatever disturbs makes longer."""
    return float(np.percentile(timing.rounds_ms, QUIET_PERCENT))


def _pays(edit: PlannedEdit) -> bool:
    """Whether an edit saves time where it stands, or may be there for something else (size, the head asked for)."""
    kept = edit.site.technique == Channels.name or (edit.site.whole and edit.site.needs == "nothing")
    return edit.predicted_saving_ms > 0 or kept


def _params(plan: Plan) -> int:
    return costs.total(plan.graph).params


def _refusal(edit: PlannedEdit) -> Refusal:
    return edit.site.refused(f"where it stands it saves {edit.predicted_saving_ms:.3f} ms")
