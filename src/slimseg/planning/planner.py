"""From a network and a budget to the set of edits: exact ones, the input size, approximations, then fewer channels.

    heads        what leaves the network, where another form of it is faster and changes nothing
    input size   the most accurate one at which all that follows can reach the target
    approximate  the least harmful set of replaced layers
    heads        again, of what they have become
    narrow       channels leave until the whole, written and timed, is as quick and as small as it has to be
    rewrite      exact edits of what is left; planned here, made after training

Time decides: every candidate is priced by a what-if in the precision that is deployed, and after each round the whole
is. Damage (pixels that change class before recovery) decides between candidates that would all do.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from torch import Tensor

from slimseg.errors import GraphError, Unsupported
from slimseg.graph import costs, edit
from slimseg.graph.channel_groups import channel_groups
from slimseg.graph.graph import Graph
from slimseg.planning import alike, sensitivity, whatif
from slimseg.planning.budget import Budget
from slimseg.planning.choose import Option, choose
from slimseg.planning.exact import SURE, ExactEdits, PlannedEdit, same_kind, slower
from slimseg.planning.layer_times import layer_times
from slimseg.planning.plan import Plan
from slimseg.planning.width import widths
from slimseg.progress import Progress
from slimseg.results import InputSizeTrial, Refusal
from slimseg.runtimes.litert import profiler
from slimseg.techniques import APPROXIMATE, HEADS, REWRITES, Site, Technique, named
from slimseg.techniques.channels import Channels, site_of
from slimseg.techniques.head import with_output
from slimseg.techniques.input_alignment import InputAlignment
from slimseg.techniques.input_size import InputSize
from slimseg.techniques.separable import Separable
from slimseg.techniques.upsampling import Upsampling

MARGIN = 1.07  # aim this much past the speed-up and the size that are asked for: both are measured again in the end
NARROWED = 0.8  # of its time that a network usually still has when channels leave it for the sake of time alone
NARROWING_ROUNDS = 4
LEAST_CHANNELS = 16  # groups of fewer are left alone
WORTH_QUANTISING = 1.05  # times faster: less is noise, and int8 costs accuracy
WORTH_SHARE = 0.005  # edits that save less of the latency than this are left out


@dataclass(frozen=True)
class Target:
    """What the plan has to reach, in numbers of the deployed precision.

    The latency is asked for again before each decision: where it is a share of another file's, a machine that slows
    down slows down both.
    """

    latency_ms: Callable[[], float] | None
    size_bytes: int | None

    def wanted_ms(self) -> float | None:
        """The latency to aim at now."""
        return self.latency_ms() / MARGIN if self.latency_ms is not None else None


@dataclass(frozen=True)
class Evidence:
    """How the planner sees the user's data: preprocessed images for a graph, and accuracy in points."""

    images: Callable[[Graph], Tensor]  # (N, 3, H, W) at the graph's input size
    accuracy: Callable[[Graph], float]  # mIoU where there are labels, else agreement with the original; 0-100
    importance: Callable[[Graph], Mapping[str, Tensor]]  # of channels, by node; see importance.py


def _applied(graph: Graph, site: Site) -> Graph | None:
    try:
        return named(site.technique).apply(graph, site)
    except (Unsupported, GraphError):
        return None  # an edit before it took its layers


def _same_size(original: Graph, graph: Graph) -> Graph:
    return original if original.input_size == graph.input_size else edit.at_input_size(original, graph.input_size)


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
        progress: Progress,
    ) -> None:
        """`precision` is the one that will be deployed."""
        self.original = original
        self.graph = with_output(original, budget.head or original.description.output_kind)
        self.budget = budget
        self.precision = precision
        self.target = target
        self.evidence = evidence
        self.progress = progress
        self.importance: Mapping[str, Tensor] = {}
        self.input_sizes: list[InputSizeTrial] = []
        self.edits: list[PlannedEdit] = []
        self.refusals: list[Refusal] = []

    def plan(self, effort: float = 1.0) -> Plan:
        """`effort` scales the time that must be saved: below 1 for a milder plan after one that hurt too much."""
        self.exact()
        if self.budget.allows("images"):
            self.input_size()
            self.approximate(effort)
            self.exact()  # before channels leave, so that no more of them leave than have to
            self.narrow()
        rewrites = self._rewrites()
        self._add(*rewrites.refusals)
        return Plan(
            self.graph, tuple(self.edits), tuple(self.refusals), tuple(rewrites.edits), self.importance,
            tuple(self.input_sizes),
        )  # fmt: skip

    def exact(self) -> None:
        """Edits of the head that change no value, where they are measured to be faster; they cost nothing."""
        heads = ExactEdits(self.graph, HEADS, self.precision, self.progress, same_kind).run()
        self.graph = heads.graph
        self.edits += heads.edits
        self._add(*heads.refusals)

    def input_size(self) -> None:
        """The most accurate input size that can reach the target, else the smallest that is accurate enough."""
        sites = [*self._find(InputAlignment()), *self._find(InputSize())]
        accuracies = self._accuracies(sites)
        prices = self._faster(list(accuracies))
        size = self.graph.input_size
        self._choose_size(
            accuracies,
            {site: price for site, price in prices.items() if accuracies[site] >= self._now - self.budget.max_drop},
        )
        self._tell_sizes(size, accuracies, prices)

    def _choose_size(self, accuracies: Mapping[Site, float], prices: Mapping[Site, whatif.Price]) -> None:
        if not prices:
            return
        chosen = min(prices, key=lambda site: prices[site].after_ms)
        wanted_ms = self.target.wanted_ms()
        if wanted_ms is not None:
            sketch = whatif.price(self._sketch(), list(prices), self.precision, self.progress).prices
            # Channels that leave will take their part.
            within = [site for site in sketch if sketch[site].after_ms * NARROWED <= wanted_ms]
            if within:
                chosen = max(within, key=lambda site: accuracies[site])
                stays = next(iter(sketch.values())).before_ms * NARROWED <= wanted_ms
                if stays and accuracies[chosen] < self._now:
                    return
        self._apply(chosen, prices[chosen].saving_ms, max(0.0, self._now - accuracies[chosen]))

    def _sketch(self) -> Graph:
        """About what the plan will make of the network, quickly: its weights are of no use, its time tells.

        All that has a form of fewer MACs takes the one of fewest, and channels leave until the file is small enough.
        """
        graph = self.graph
        for technique in (Upsampling(), Separable()):
            sites = technique.find(graph, {}).sites
            for _, variants in groupby(sites, key=lambda site: site.layers[0]):
                forms = [form for site in variants if (form := _applied(graph, site)) is not None]
                graph = min([graph, *forms], key=lambda form: costs.total(form).macs)
        if self.target.size_bytes is not None:
            for site in self._widths(graph, 0.0, self._need_bytes(graph)):
                graph = named(site.technique).apply(graph, site)
        return graph

    def _faster(self, sites: Sequence[Site]) -> dict[Site, whatif.Price]:
        """Prices of the sites that save time; the others are refused."""
        priced = whatif.price(self.graph, sites, self.precision, self.progress)
        self.refusals.extend(priced.refusals)
        for site, price in priced.prices.items():
            if price.saving_ms <= 0:
                self._refuse_slower(site, price)
        return {site: price for site, price in priced.prices.items() if price.saving_ms > 0}

    def _accuracies(self, sites: Sequence[Site]) -> dict[Site, float]:
        """Accuracy at each size, untrained; those behind one that loses far too much are left out."""
        self._now = self.evidence.accuracy(self.graph)
        found: dict[Site, float] = {}
        for site in self.progress.track(sites, "trying input sizes"):
            found[site] = self.evidence.accuracy(InputSize().apply(self.graph, site))
            if found[site] < self._now - 4 * self.budget.max_drop - 1:
                break
        return found

    def _tell_sizes(
        self, before: tuple[int, int], accuracies: Mapping[Site, float], prices: Mapping[Site, whatif.Price]
    ) -> None:
        """The accuracy curve, the size before among the others."""
        chosen = self.graph.input_size
        if prices:
            first = next(iter(prices.values()))
            self.input_sizes.append(InputSizeTrial(before, first.before_ms, self._now, before == chosen))
        for site, price in prices.items():
            height, _, width = site.variant.partition("x")
            size = (int(height), int(width))
            self.input_sizes.append(InputSizeTrial(size, price.after_ms, accuracies[site], size == chosen))

    def approximate(self, effort: float) -> None:
        """The least harmful set of approximations that reaches the targets."""
        sites = [site for technique in APPROXIMATE for site in self._find(technique) if self.budget.allows(site.needs)]
        if not sites:
            return
        priced = alike.price_alike(self.graph, sites, self.precision, self.progress)
        self._add(*priced.refusals)
        now_ms = whatif.latency_ms(self.graph, self.precision)
        useful = []
        for site, price in priced.prices.items():
            pays = price.saving_ms > WORTH_SHARE * now_ms and price.wins >= SURE
            if not pays and (self.target.size_bytes is None or self._saving_bytes(site) <= 0):
                self._refuse_slower(site, price)
            else:
                useful.append(site)
        damage = sensitivity.damage(self.graph, useful, self.evidence.images(self.graph), self.progress)
        options = [
            Option(site, priced.prices[site].saving_ms, self._saving_bytes(site), damage[site]) for site in useful
        ]
        need_bytes = self._need_bytes(self.graph) if self.target.size_bytes is not None else None
        for option in choose(options, self._need_ms(now_ms, options, effort), need_bytes):
            try:
                self._apply(option.site, option.saving_ms, option.damage)
            except (Unsupported, GraphError) as error:
                self._refuse(option.site, f"another edit stands against it: {error}")

    def narrow(self) -> None:
        """Channels leave, the least important for what they save, until time and size are what was asked for."""
        if self.target.latency_ms is None and self.target.size_bytes is None:
            return
        kept = 1.0
        for number in range(NARROWING_ROUNDS):
            now_ms = whatif.latency_ms(self.graph, self.precision)
            wanted_ms = self.target.wanted_ms()
            if wanted_ms is not None and now_ms > wanted_ms and not number:
                kept = self._kept_by_rewriting()
            need_ms = kept * now_ms - wanted_ms if wanted_ms is not None else 0.0
            need_bytes = self._need_bytes(self.graph) if self.target.size_bytes is not None else 0
            if need_ms <= 0 and need_bytes <= 0:
                return
            if not number:
                self.importance = self.evidence.importance(_same_size(self.original, self.graph))
                self.graph = self.graph.copy()
                self.graph.importance = self.importance
            sites = self._widths(self.graph, need_ms / kept, need_bytes)
            if not sites:
                return
            for site in sites:
                self._apply(site, 0.0, 0.0)
            saved_ms = now_ms - whatif.latency_ms(self.graph, self.precision)
            # They were chosen together and are told together.
            self.edits[-len(sites) :] = [PlannedEdit(site, saved_ms / len(sites), 0.0) for site in sites]

    def _kept_by_rewriting(self) -> float:
        """The share of its time that the network keeps when it is rewritten, which comes last but counts already."""
        price = whatif.compare(self.graph, self._rewrites().graph, self.precision)
        return min(1.0, price.after_ms / price.before_ms)

    def _rewrites(self) -> ExactEdits:
        """Other ways to write what is left, as the runtime likes it; training sees the plain one."""
        return ExactEdits(self.graph, REWRITES, self.precision, self.progress, self._objection).run()

    def _objection(self, before: Graph, after: Graph) -> str | None:
        """A bound on the size comes before time: some rewrites hold zeros or repeated constants."""
        if self.target.size_bytes is not None and costs.total(after).params > costs.total(before).params:
            return "it has more parameters, and the file's size is bounded"
        return same_kind(before, after)

    def _widths(self, graph: Graph, need_ms: float, need_bytes: int) -> list[Site]:
        """A site for every group of channels that loses some."""
        every = channel_groups(graph)
        self._add(*(Refusal(Channels.name, group.root, group.fixed) for group in every if group.fixed is not None))
        groups = [group for group in every if group.fixed is None and group.channels >= LEAST_CHANNELS]
        with tempfile.TemporaryDirectory(prefix="slimseg-") as folder:
            path = whatif.written(graph, self.precision, Path(folder) / "whole.tflite")
            times = layer_times(graph, profiler.profile(path))
            bytes_per_parameter = path.stat().st_size / costs.total(graph).params
        kept = widths(graph, groups, times, need_ms, int(need_bytes / bytes_per_parameter))
        return [site_of(graph, group, kept[group.root]) for group in groups if group.root in kept]

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

    def _need_bytes(self, graph: Graph) -> int:
        """Bytes that the file of this graph is too big."""
        assert self.target.size_bytes is not None
        with tempfile.TemporaryDirectory(prefix="slimseg-") as folder:
            path = whatif.written(graph, self.precision, Path(folder) / "whole.tflite")
            return int(path.stat().st_size - self.target.size_bytes / MARGIN)

    def _saving_bytes(self, site: Site) -> int:
        """int8 weights: one byte a parameter."""
        return costs.total(self.graph).params - costs.total(named(site.technique).apply(self.graph, site)).params

    def _find(self, technique: Technique) -> list[Site]:
        found = technique.find(self.graph, {})
        self._add(*found.refusals)
        return list(found.sites)

    def _apply(self, site: Site, saving_ms: float, damage: float) -> None:
        self.graph = named(site.technique).apply(self.graph, site)
        self.edits.append(PlannedEdit(site, saving_ms, damage))

    def _refuse_slower(self, site: Site, price: whatif.Price) -> None:
        self._refuse(site, slower(price))

    def _refuse(self, site: Site, reason: str) -> None:
        self._add(Refusal(site.technique, site.layers[0], f"{site.variant}: {reason}"))

    def _add(self, *refusals: Refusal) -> None:
        self.refusals += [refusal for refusal in refusals if refusal not in self.refusals]
