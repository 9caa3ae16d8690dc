"""Times every edit in place: in the whole network, on top of the edits before it.

A what-if times a part of the network alone. It misses how neighbouring layers share the caches, and that one edit may
reduce what another one saves. Time does not depend on weights, so edits are timed in place before any training. Then
predictions are corrected, edits that save nothing in place are removed, and consecutive edits of one technique whose
separate savings have large standard errors are reported together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from slimseg.deployment import Deployment
from slimseg.disk import scratch
from slimseg.errors import GraphError, Unsupported
from slimseg.graph import costs
from slimseg.graph.graph import Graph
from slimseg.planning.choosing.exact import PlannedEdit
from slimseg.planning.choosing.plan import Plan
from slimseg.planning.pricing import steady
from slimseg.planning.pricing.steady import Steady
from slimseg.planning.running import deploy
from slimseg.progress import Progress
from slimseg.techniques.channels import Channels
from slimseg.techniques.head import Head

SECONDS = 150.0  # longest timing of all stages together: some edits save only 1 % of the latency
WORTH = 0.005  # share of the starting latency: a smaller saving counts only if it is statistically significant


@dataclass(frozen=True)
class Measured:
    """A plan with corrected predictions, and for each group of edits its saving and the saving's standard error."""

    plan: Plan
    savings_ms: tuple[float, ...] = ()
    errors_ms: tuple[float, ...] = ()

    def lost(self) -> list[tuple[PlannedEdit, str]]:
        """The edits of all groups that do not pay in place, each with the reason."""
        groups = zip(_groups(self.plan), self.savings_ms, self.errors_ms, strict=True)
        return [
            (edit, f"in the whole network it saves {saving_ms:.3f} ms, with a standard error of {error_ms:.3f} ms")
            for group, saving_ms, error_ms in groups
            if not self._pays(group, saving_ms, error_ms)
            for edit in group
        ]

    def _pays(self, group: Sequence[PlannedEdit], saving_ms: float, error_ms: float) -> bool:
        """Whether the edits save time in place, or also serve another purpose (file size, work on the host)."""
        if any(_there_for_more(edit) for edit in group):
            return True
        return saving_ms > 0 and (saving_ms > 2 * error_ms or saving_ms > WORTH * (self.plan.start_ms or 0.0))

    def told(self) -> Plan:
        """The plan, with imprecisely known savings marked to be reported with a neighbour of the same technique."""
        groups = _groups(self.plan)
        told: list[PlannedEdit] = []
        for group, joined in zip(groups, _joined(groups, self.savings_ms, self.errors_ms), strict=True):
            told += [replace(group[0], with_previous=joined), *group[1:]]
        return _with_edits(self.plan, told)


@dataclass(frozen=True)
class InPlace:
    """Times plans in place on one network, for one deployment."""

    asked: Graph  # the network before the first edit
    start: Path  # its file
    images: deploy.Images
    deployment: Deployment
    progress: Progress
    size_is_bounded: bool = False
    seconds: float = SECONDS
    until: float = math.inf  # a `time.monotonic()` at which timing ends, even if standard errors are still large

    def paying(self, plan: Plan) -> Plan:
        """The plan with corrected predictions, without the edits that save nothing in place."""
        measured = self.timed(plan)
        lost = measured.lost()
        if not lost:
            return measured.told()
        milder = plan
        for edit, reason in lost:
            try:
                without = milder.without(self.asked, [edit.site])
            except (Unsupported, GraphError):
                continue  # another edit depends on it
            if self.size_is_bounded and _params(without) > _params(milder):
                continue  # it makes the file smaller
            milder = replace(without, refusals=(*without.refusals, edit.site.refused(reason)))
        return self.timed(milder).told()

    def timed(self, plan: Plan) -> Measured:
        """The plan with corrected predictions; `alone_saving_ms` keeps the predictions of the what-ifs."""
        every = (*plan.edits, *plan.rewrites)
        if not every:
            return Measured(plan)
        self.progress.say("Predictions: every edit timed in the whole network")
        with scratch.folder() as folder:
            found = self.time(self.stages(every, folder))
        corrected = _with_edits(plan, deploy.in_place(every, found.latencies_ms))
        return Measured(replace(corrected, start_ms=found.latencies_ms[0]), found.savings_ms, found.errors_ms)

    def time(self, stages: Sequence[Path]) -> Steady:
        """Time all stages, interleaved, until every saving's standard error is small or the time is used up."""
        return steady.time_files(stages, self.seconds, self.progress, until=self.until)

    def stages(self, edits: Sequence[PlannedEdit], folder: Path) -> list[Path]:
        """The file before the first edit and one after each group of edits."""
        made = deploy.write_stages(self.asked, edits, folder, self.images, self.deployment, self.progress)
        return [self.start, *made]


def _there_for_more(edit: PlannedEdit) -> bool:
    if edit.serves:
        return True
    return edit.site.technique == Channels.name or (edit.site.technique == Head.name and edit.site.whole)


def _groups(plan: Plan) -> list[tuple[PlannedEdit, ...]]:
    return deploy.grouped((*plan.edits, *plan.rewrites))


def _with_edits(plan: Plan, every: Sequence[PlannedEdit]) -> Plan:
    count = len(plan.edits)
    return replace(plan, edits=tuple(every[:count]), rewrites=tuple(every[count:]))


def _joined(
    groups: Sequence[Sequence[PlannedEdit]], savings_ms: Sequence[float], errors_ms: Sequence[float]
) -> list[bool]:
    """For every group, whether it is reported with the group before it.

    Groups of one technique are joined only until their common saving has a small standard error (`steady.known`).
    """

    def known(run: Sequence[int]) -> bool:
        # The saving of joined groups is a difference of two files, as is that of one group: so its error is similar.
        return steady.known(sum(savings_ms[each] for each in run), max(errors_ms[each] for each in run))

    def alike(first: int, second: int) -> bool:
        return groups[first][0].site.technique == groups[second][0].site.technique

    runs: list[list[int]] = []
    for number in range(len(groups)):
        if runs and alike(runs[-1][-1], number) and not known(runs[-1]):
            runs[-1].append(number)
        else:
            runs.append([number])
    starts = {
        run[0]
        for before, run in zip([None, *runs], runs, strict=False)
        if before is None or known(run) or not alike(before[-1], run[0])
    }
    return [number not in starts for number in range(len(groups))]


def _params(plan: Plan) -> int:
    return costs.total(plan.graph).params
