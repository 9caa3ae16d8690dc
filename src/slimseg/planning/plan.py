"""From a network and a budget to the set of edits: exact ones, then the input size, then the approximations.

Time decides: every candidate is priced by a what-if in the precision that is deployed. Damage (pixels that change
class before recovery) decides between candidates that would all do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from slimseg.graph import costs
from slimseg.graph.graph import Graph
from slimseg.planning import sensitivity, whatif
from slimseg.planning.budget import Budget
from slimseg.planning.choose import Option, choose
from slimseg.planning.exact import ExactEdits, PlannedEdit, same_kind, slower
from slimseg.progress import Progress
from slimseg.results import Refusal
from slimseg.techniques import APPROXIMATE, HEADS, Site, Technique, named
from slimseg.techniques.head import with_output
from slimseg.techniques.input_size import InputSize

# Recovery and noise take their part: aim this much past the speed-up that is asked for.
MARGIN = 1.3
# Part of the time of a replaced layer that an edit usually saves; only used to compare input sizes.
USUAL_SAVING = 0.5
WORTH_QUANTISING = 1.05  # times faster: less is noise, and int8 costs accuracy
WORTH_SHARE = 0.005  # edits that save less of the latency than this are left out


@dataclass(frozen=True)
class Target:
    """What the plan has to reach, in numbers of the deployed precision."""

    latency_ms: float | None
    size_bytes: int | None


@dataclass(frozen=True)
class Evidence:
    """How the planner sees the user's data: preprocessed images for a graph, and accuracy in points."""

    images: Callable[[Graph], Tensor]  # (N, 3, H, W) at the graph's input size
    accuracy: Callable[[Graph], float]  # mIoU where there are labels, else agreement with the original; 0-100


@dataclass(frozen=True)
class Plan:
    graph: Graph
    edits: tuple[PlannedEdit, ...]
    refusals: tuple[Refusal, ...]


def deployed_precision(budget: Budget, gain: float, float_bytes: int) -> whatif.Precision:
    """int8, unless outputs must stay equal (quantisation needs images and changes values) or it makes nothing faster.

    `gain` is how many times faster the original is in int8, `float_bytes` its size in float32: where only int8 can be
    small enough, it is taken for that.
    """
    if budget.needs == "nothing":
        return "float32"
    needed = budget.max_size_bytes is not None and float_bytes > budget.max_size_bytes
    return "int8" if needed or gain >= WORTH_QUANTISING else "float32"


class Planner:
    """Makes one plan; `edits` and `refusals` grow as it goes."""

    def __init__(
        self,
        original: Graph,
        budget: Budget,
        precision: whatif.Precision,
        target: Target,
        evidence: Evidence,
        int8_bytes: int,
        progress: Progress,
    ) -> None:
        """`precision` is the one that will be deployed, `int8_bytes` the size of the original's int8 file."""
        self.graph = with_output(original, budget.head or original.description.output_kind)
        self.budget = budget
        self.precision = precision
        self.target = target
        self.evidence = evidence
        self.bytes_beside_weights = int8_bytes - costs.total(original).params
        self.progress = progress
        self.edits: list[PlannedEdit] = []
        self.refusals: list[Refusal] = []
        self.latency_ms = 0.0

    def plan(self, effort: float = 1.0) -> Plan:
        """`effort` scales the time that must be saved: below 1 for a milder plan after one that hurt too much."""
        self.exact()
        if self.budget.allows("images"):
            self.input_size()
            self.approximate(effort)
            self.exact()
        return Plan(self.graph, tuple(self.edits), tuple(self.refusals))

    def exact(self) -> None:
        """Edits of the head that change no value, where they are measured to be faster; they cost nothing."""
        heads = ExactEdits(self.graph, HEADS, self.precision, self.progress, same_kind).run()
        self.graph = heads.graph
        self.edits += heads.edits
        self.refusals += [refusal for refusal in heads.refusals if refusal not in self.refusals]

    def input_size(self) -> None:
        """The most accurate input size that can reach the target, else the smallest that is accurate enough."""
        sites = self._find(InputSize())
        accuracies = self._accuracies(sites)
        prices = self._faster(list(accuracies))
        if not prices:
            return
        reachable = 1 - USUAL_SAVING * self._share_of_replaceable_macs()
        fits = [
            site
            for site in prices
            if self.target.latency_ms is not None
            and prices[site].after_ms * reachable <= self.target.latency_ms / MARGIN
        ]
        if fits:
            chosen = max(fits, key=lambda site: accuracies[site])
        else:
            chosen = min(prices, key=lambda site: prices[site].after_ms)
        keep = next(iter(prices.values())).before_ms * reachable
        if (
            self.target.latency_ms is not None
            and keep <= self.target.latency_ms / MARGIN
            and accuracies[chosen] < self._now
        ):
            return
        self._apply(chosen, prices[chosen].saving_ms, max(0.0, self._now - accuracies[chosen]))

    def _faster(self, sites: Sequence[Site]) -> dict[Site, whatif.Price]:
        """Prices of the sites that save time; the others are refused."""
        priced = whatif.price(self.graph, sites, self.precision, self.progress)
        self.refusals.extend(priced.refusals)
        for site, price in priced.prices.items():
            if price.saving_ms <= 0:
                self._refuse_slower(site, price)
        return {site: price for site, price in priced.prices.items() if price.saving_ms > 0}

    def _accuracies(self, sites: Sequence[Site]) -> dict[Site, float]:
        """Accuracy of the sizes that lose no more than the budget allows; training there brings some of it back."""
        self._now = self.evidence.accuracy(self.graph)
        kept: dict[Site, float] = {}
        for site in self.progress.track(sites, "trying input sizes"):
            accuracy = self.evidence.accuracy(InputSize().apply(self.graph, site))
            if accuracy >= self._now - self.budget.max_drop:
                kept[site] = accuracy
            elif accuracy < self._now - 4 * self.budget.max_drop - 1:
                break
        return kept

    def _share_of_replaceable_macs(self) -> float:
        layers = {
            layer for technique in APPROXIMATE for site in technique.find(self.graph, {}).sites for layer in site.layers
        }
        macs = {node.name: costs.cost(self.graph, node).macs for node in self.graph.layers()}
        return sum(macs[layer] for layer in layers) / max(1, sum(macs.values()))

    def approximate(self, effort: float) -> None:
        """The least harmful set of approximations that reaches the targets."""
        sites = [site for technique in APPROXIMATE for site in self._find(technique)]
        if not sites:
            return
        priced = whatif.price(self.graph, sites, self.precision, self.progress)
        self.refusals.extend(priced.refusals)
        now_ms = whatif.latency_ms(self.graph, self.precision)
        useful = []
        for site, price in priced.prices.items():
            if price.saving_ms <= WORTH_SHARE * now_ms and self.target.size_bytes is None:
                self._refuse_slower(site, price)
            else:
                useful.append(site)
        damage = sensitivity.damage(self.graph, useful, self.evidence.images(self.graph), self.progress)
        options = [
            Option(site, priced.prices[site].saving_ms, self._saving_bytes(site), damage[site]) for site in useful
        ]
        for option in choose(options, self._need_ms(now_ms, options, effort), self._need_bytes()):
            self._apply(option.site, option.saving_ms, option.damage)

    def _need_ms(self, now_ms: float, options: Sequence[Option], effort: float) -> float | None:
        if self.target.latency_ms is not None:
            return max(0.0, now_ms - self.target.latency_ms / MARGIN) * effort
        if effort == 1:
            return None
        best: dict[tuple[str, ...], float] = {}
        for option in options:
            best[option.site.layers] = max(best.get(option.site.layers, 0.0), option.saving_ms)
        return effort * sum(best.values())

    def _need_bytes(self) -> int | None:
        if self.target.size_bytes is None:
            return None
        return int(costs.total(self.graph).params + 1.02 * self.bytes_beside_weights - 0.98 * self.target.size_bytes)

    def _saving_bytes(self, site: Site) -> int:
        """int8 weights: one byte a parameter."""
        return costs.total(self.graph).params - costs.total(named(site.technique).apply(self.graph, site)).params

    def _find(self, technique: Technique) -> list[Site]:
        found = technique.find(self.graph, {})
        self.refusals.extend(refusal for refusal in found.refusals if refusal not in self.refusals)
        return list(found.sites)

    def _apply(self, site: Site, saving_ms: float, damage: float) -> None:
        self.graph = named(site.technique).apply(self.graph, site)
        self.edits.append(PlannedEdit(site, saving_ms, damage))

    def _refuse_slower(self, site: Site, price: whatif.Price) -> None:
        self.refusals.append(Refusal(site.technique, site.layers[0], f"{site.variant}: {slower(price)}"))
