"""Plans the edits of a network for a budget, in this order:

    heads        exact edits of the output layers, if they are faster
    input size   the most accurate size at which the later edits reach the target without the most damaging ones
    approximate  the least damaging set of replaced layers with which the whole network is fast enough
    heads        once more, as the layers before them have changed
    narrow       channels are removed until the whole network is as fast and as small as required
    rewrite      exact edits of the result; planned here, applied after training

Every edit is timed by a what-if in the deployed precision, and after each step the whole network is timed. Among edits
that are fast enough, those with the least damage (pixels that change class before recovery) are chosen.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from slimseg.deployment import Deployment
from slimseg.errors import GraphError, Unsupported
from slimseg.graph import costs, edit
from slimseg.graph.graph import Graph
from slimseg.planning.choosing import sensitivity
from slimseg.planning.choosing.budget import Budget
from slimseg.planning.choosing.choose import Option, choose
from slimseg.planning.choosing.exact import SURE, ExactEdits, PlannedEdit, same_kind
from slimseg.planning.choosing.input_sizes import InputSizes
from slimseg.planning.choosing.plan import Plan
from slimseg.planning.choosing.target import Target
from slimseg.planning.choosing.width import narrowing
from slimseg.planning.pricing import alike, whatif
from slimseg.progress import Progress
from slimseg.results import InputSizeTrial, Refusal
from slimseg.techniques import APPROXIMATE, HEADS, REWRITES, Site, Technique, named
from slimseg.techniques.head import with_output

NARROWING_ROUNDS = 4
ROUNDS = 6  # most rounds of choosing approximations and timing the whole network with them
NEAR = 0.95  # share of the allowed latency from which on a network counts as slow enough: milder edits are not tried
SURE_SHARE = 0.01  # a saving of the whole network below this share of its latency is noise
WORTH_SHARE = 0.005  # edits that save a smaller share of the latency are left out


@dataclass(frozen=True)
class Evidence:
    """The planner's access to the user's data: preprocessed images, accuracy and channel importance."""

    images: Callable[[Graph], Tensor]  # (N, 3, H, W) at the graph's input size
    accuracy: Callable[[Graph], float]  # mIoU with labels, otherwise agreement with the original; 0-100
    importance: Callable[[Graph], Mapping[str, Tensor]]  # of the channels, by node name; see importance.py


@dataclass(frozen=True)
class Applied:
    """The graph with some edits applied, and refusals of those that could not be applied."""

    graph: Graph
    edits: tuple[PlannedEdit, ...]
    refusals: tuple[Refusal, ...]


def _same_size(original: Graph, graph: Graph) -> Graph:
    return original if original.input_size == graph.input_size else edit.at_input_size(original, graph.input_size)


class Planner:
    """Makes one plan; its methods update `graph`, `edits` and `refusals`."""

    def __init__(
        self,
        original: Graph,
        budget: Budget,
        deployment: Deployment,
        target: Target,
        evidence: Evidence,
        progress: Progress,
        until: float = math.inf,
    ) -> None:
        """Prepare a plan for `deployment`; no new measurement begins after `until`, a `time.monotonic()`."""
        self.original = original
        self.graph = with_output(original, budget.head or original.description.output_kind)
        self.budget = budget
        self.deployment = deployment
        self.target = target
        self.evidence = evidence
        self.progress = progress
        self.until = until
        self.importance: Mapping[str, Tensor] = {}
        self.input_sizes: tuple[InputSizeTrial, ...] = ()
        self.edits: list[PlannedEdit] = []
        self.refusals: list[Refusal] = []

    def plan(self, effort: float = 1.0) -> Plan:
        """The plan. `effort` scales the time that must be saved: below 1 for a milder plan, if one lost too much."""
        self.exact()
        if self.budget.allows("images"):
            self.input_size()
            self.approximate(effort)
            self.exact()  # before channels are removed, so that fewer have to be
            self.narrow()
        rewrites = self._rewrites()
        self._add(*rewrites.refusals)
        return Plan(
            self.graph, tuple(self.edits), tuple(self.refusals), tuple(rewrites.edits), self.importance,
            self.input_sizes,
        )  # fmt: skip

    def exact(self) -> None:
        """Apply exact edits of the head, if they are measured to be faster; they change no values."""
        heads = ExactEdits(self.graph, HEADS, self.deployment, self.progress, same_kind, self.until).run()
        self.graph = heads.graph
        self.edits += heads.edits
        self._add(*heads.refusals)

    def input_size(self) -> None:
        """Apply the most accurate input size that can reach the target, or else the fastest accurate enough."""
        if self._is_over:
            return
        sizes = InputSizes(
            self.graph, self.evidence.accuracy, self.budget.max_drop, self.target, self.deployment, self.progress,
            self.until,
        )  # fmt: skip
        chosen = sizes.choose()
        self.input_sizes = chosen.trials
        self._add(*chosen.refusals)
        if chosen.edit is not None:
            self._apply(chosen.edit)

    def approximate(self, effort: float) -> None:
        """Apply the least damaging set of approximations that reaches the targets."""
        sites = [site for technique in APPROXIMATE for site in self._find(technique) if self.budget.allows(site.needs)]
        if not sites:
            return
        priced = alike.price_alike(self.graph, sites, self.deployment, self.progress, until=self.until)
        self._add(*priced.refusals)
        now_ms = whatif.latency_ms(self.graph, self.deployment)
        useful = []
        for site, price in priced.prices.items():
            reason = price.objection(SURE, WORTH_SHARE * now_ms)
            if reason is None or (self.target.size_bytes is not None and self._saving_bytes(site) > 0):
                useful.append(site)
            else:
                self._add(site.refused(reason))
        damage = sensitivity.damage(self.graph, useful, self.evidence.images(self.graph), self.progress, self.until)
        self._add(*(site.refused(whatif.NO_TIME) for site in useful if site not in damage))
        options = [
            Option(site, priced.prices[site].saving_ms, self._saving_bytes(site), hurts)
            for site, hurts in damage.items()
        ]
        need_bytes = self.target.excess_bytes(self.graph, self.deployment)
        self._take(self._approximations(options, now_ms, self._need_ms(now_ms, options, effort), need_bytes))

    def _approximations(
        self, options: Sequence[Option], now_ms: float, need_ms: float | None, need_bytes: int | None
    ) -> Applied:
        """The best set of `options`, applied.

        Together, edits may save more or less than the sum of their what-ifs. So the saving that the what-ifs must add
        up to is adjusted until the whole network is about as fast as required.
        """
        best = self._with(choose(options, need_ms, need_bytes))
        if not need_ms or not best.edits:
            return best
        allowed = 1 - need_ms / now_ms
        tried, asked = best, 1.0  # `asked`: sum that the what-ifs must save, in units of `need_ms`
        too_little, enough = 0.0, math.inf
        for _ in range(ROUNDS):
            kept = self._kept(tried)
            if kept <= allowed:
                best, enough = tried, asked
            else:
                too_little = asked
                best = tried if enough == math.inf else best
            if NEAR * allowed <= kept <= allowed or self._is_over:
                break
            known_both = too_little and enough < math.inf
            asked = (too_little + enough) / 2 if known_both else asked * (1 - allowed) / max(1 - kept, SURE_SHARE)
            before, tried = tried, self._with(choose(options, asked * need_ms, need_bytes))
            if tried.edits == before.edits:
                break
        return best

    def _kept(self, applied: Applied) -> float:
        """The latency of the whole network after the edits, as a share of that before."""
        price = whatif.compare(self.graph, applied.graph, self.deployment)
        return price.after_ms / price.before_ms

    def narrow(self) -> None:
        """Remove the channels with the least importance per saving until latency and size meet the target."""
        if self.target.latency_ms is None and self.target.size_bytes is None:
            return
        kept = 1.0
        for number in range(NARROWING_ROUNDS):
            if self._is_over:
                return
            now_ms = whatif.latency_ms(self.graph, self.deployment)
            wanted_ms = self.target.wanted_ms()
            if wanted_ms is not None and now_ms > wanted_ms and not number:
                kept = self._kept_by_rewriting()
            need_ms = kept * now_ms - wanted_ms if wanted_ms is not None else 0.0
            need_bytes = self.target.excess_bytes(self.graph, self.deployment) or 0
            if need_ms <= 0 and need_bytes <= 0:
                return
            if not number:
                self.importance = self.evidence.importance(_same_size(self.original, self.graph))
                self.graph = self.graph.copy()
                self.graph.importance = self.importance
            found = narrowing(self.graph, self.deployment, need_ms / kept, need_bytes)
            self._add(*found.refusals)
            if not found.sites:
                return
            for site in found.sites:
                self.graph = named(site.technique).apply(self.graph, site)
            saved_ms = now_ms - whatif.latency_ms(self.graph, self.deployment)
            # They were chosen together and are reported together.
            self.edits += [PlannedEdit(site, saved_ms / len(found.sites), 0.0) for site in found.sites]

    @property
    def _is_over(self) -> bool:
        """Whether planning has used its time."""
        return time.monotonic() >= self.until

    def _kept_by_rewriting(self) -> float:
        """The share of its latency that the network keeps after the rewrites, which are applied last but count now."""
        price = whatif.compare(self.graph, self._rewrites().graph, self.deployment)
        return min(1.0, price.after_ms / price.before_ms)

    def _rewrites(self) -> ExactEdits:
        """Exact edits that make the planned network faster on the runtime; training uses the network without them."""
        return ExactEdits(self.graph, REWRITES, self.deployment, self.progress, self._objection, self.until).run()

    def _objection(self, before: Graph, after: Graph) -> str | None:
        """Why an edit is not allowed, or None. Some rewrites enlarge the file by zeros or repeated constants."""
        if self.target.size_bytes is not None and costs.total(after).params > costs.total(before).params:
            return "it has more parameters, and the budget limits the file's size"
        return same_kind(before, after)

    def _need_ms(self, now_ms: float, options: Sequence[Option], effort: float) -> float | None:
        wanted_ms = self.target.wanted_ms()
        if wanted_ms is not None:
            return max(0.0, now_ms - wanted_ms) * effort
        if effort == 1:
            return None
        best: dict[tuple[str, ...], float] = {}
        for option in options:
            best[option.site.layers] = max(best.get(option.site.layers, 0.0), option.saving_ms)
        return effort * sum(best.values())

    def _saving_bytes(self, site: Site) -> int:
        """Bytes that the edit saves, at one byte per parameter (int8 weights)."""
        return costs.total(self.graph).params - costs.total(named(site.technique).apply(self.graph, site)).params

    def _find(self, technique: Technique) -> list[Site]:
        found = technique.find(self.graph)
        self._add(*found.refusals)
        return list(found.sites)

    def _with(self, options: Sequence[Option]) -> Applied:
        """The graph with these options applied; options that conflict with an earlier one are refused."""
        graph, edits, refusals = self.graph, [], []
        for option in options:
            try:
                graph = named(option.site.technique).apply(graph, option.site)
                edits.append(PlannedEdit(option.site, option.saving_ms, option.damage))
            except (Unsupported, GraphError) as error:
                refusals.append(option.site.refused(f"it conflicts with an earlier edit: {error}"))
        return Applied(graph, tuple(edits), tuple(refusals))

    def _take(self, applied: Applied) -> None:
        self.graph = applied.graph
        self.edits += applied.edits
        self._add(*applied.refusals)

    def _apply(self, planned: PlannedEdit) -> None:
        self.graph = named(planned.site.technique).apply(self.graph, planned.site)
        self.edits.append(planned)

    def _add(self, *refusals: Refusal) -> None:
        self.refusals += [refusal for refusal in refusals if refusal not in self.refusals]
