"""Chooses the input size: the most accurate one at which the later edits can still reach the target latency.

    accuracy   of the untrained network at every size; it falls with the size
    time       of the whole network at every size; sizes that save no time are refused
    sketch     a network with about the strongest edits possible, timed at every size; it estimates whether edits can
               reach the target with half of their effect (little damage) or only with all of it

If no latency is required, or no size that is accurate enough reaches it, the fastest of these sizes is chosen.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from slimseg.deployment import Deployment
from slimseg.errors import GraphError, Unsupported
from slimseg.graph import costs
from slimseg.graph.graph import Graph
from slimseg.planning.choosing.exact import PlannedEdit
from slimseg.planning.choosing.target import Target
from slimseg.planning.choosing.width import narrowing
from slimseg.planning.pricing import whatif
from slimseg.planning.pricing.whatif import Price
from slimseg.progress import Progress
from slimseg.results import InputSizeTrial, Refusal
from slimseg.techniques import Site, named
from slimseg.techniques.input_alignment import InputAlignment
from slimseg.techniques.input_size import InputSize, size_of
from slimseg.techniques.separable import Separable
from slimseg.techniques.upsampling import Upsampling

NARROWED = 0.8  # share of its latency that a network usually keeps when channels are removed only to save time
# The effort of the later edits: an exponent of the largest speed-up that they can give. Sizes that need half the effort
# are preferred: edits are applied from the least damaging on, and the last ones damage more than all before.
EFFORTS = (0.5, 1.0)


@dataclass(frozen=True)
class ChosenSize:
    """The edit (None if the size does not change), and the accuracy curve, which includes the size before."""

    edit: PlannedEdit | None
    trials: tuple[InputSizeTrial, ...]
    refusals: tuple[Refusal, ...]


@dataclass(frozen=True)
class InputSizes:
    """One network, and the criteria by which its input size is chosen."""

    graph: Graph
    accuracy: Callable[[Graph], float]  # in points, 0-100
    max_drop: float  # largest loss of accuracy by a smaller input, in points
    target: Target
    deployment: Deployment
    progress: Progress
    until: float = math.inf  # a `time.monotonic()` after which no further size is tried

    def choose(self) -> ChosenSize:
        """The size to use; the network itself is not changed."""
        found = [technique.find(self.graph) for technique in (InputAlignment(), InputSize())]
        now = self.accuracy(self.graph)
        accuracies = self._accuracies([site for each in found for site in each.sites], now)
        priced = whatif.price(self.graph, list(accuracies), self.deployment, self.progress)
        objections = {site: price.objection() for site, price in priced.prices.items()}
        faster = {site: price for site, price in priced.prices.items() if objections[site] is None}
        chosen = self._best({site: accuracies[site] for site in faster}, faster, now)
        refusals = (
            *(refusal for each in found for refusal in each.refusals),
            *priced.refusals,
            *(site.refused(reason) for site, reason in objections.items() if reason is not None),
        )
        edit = None
        if chosen is not None:
            edit = PlannedEdit(chosen, faster[chosen].saving_ms, max(0.0, now - accuracies[chosen]))
        return ChosenSize(edit, self._curve(chosen, now, accuracies, faster), refusals)

    def _accuracies(self, sites: Sequence[Site], now: float) -> dict[Site, float]:
        """Accuracy of the untrained network at each size, down to the first size that loses far too much."""
        found: dict[Site, float] = {}
        for site in self.progress.track(sites, "trying input sizes"):
            if time.monotonic() >= self.until:
                break
            found[site] = self.accuracy(InputSize().apply(self.graph, site))
            if found[site] < now - 4 * self.max_drop - 1:
                break
        return found

    def _best(self, accuracies: Mapping[Site, float], prices: Mapping[Site, Price], now: float) -> Site | None:
        """The size to use, from those that save time; None if the network keeps its size."""
        accurate = [site for site in accuracies if accuracies[site] >= now - self.max_drop]
        if not accurate:
            return None
        fastest = min(accurate, key=lambda site: prices[site].after_ms)
        wanted_ms = self.target.wanted_ms()
        if wanted_ms is None:
            return fastest
        sketch = whatif.price(self._sketch(), accurate, self.deployment, self.progress).prices
        now_ms, sketch_ms = (next(iter(each.values())).before_ms for each in (prices, sketch))
        for effort in EFFORTS:
            within = [
                site
                for site in sketch
                if _reached_ms(prices[site].after_ms, sketch[site].after_ms, effort) <= wanted_ms
            ]
            if within:
                chosen = max(within, key=lambda site: accuracies[site])
                stays = _reached_ms(now_ms, sketch_ms, effort) <= wanted_ms
                return None if stays and accuracies[chosen] < now else chosen
        return fastest

    def _sketch(self) -> Graph:
        """A quick sketch of the planned network, made for its latency only: its weights are meaningless.

        Every layer that can be replaced gets the form with the fewest MACs; then channels are removed until the file is
        small enough.
        """
        graph = self.graph
        for technique in (Upsampling(), Separable()):
            sites = technique.find(graph).sites
            for _, variants in groupby(sites, key=lambda site: site.layers[0]):
                forms = [form for site in variants if (form := _applied(graph, site)) is not None]
                graph = min([graph, *forms], key=lambda form: costs.total(form).macs)
        need_bytes = self.target.excess_bytes(graph, self.deployment)
        if need_bytes is not None:
            for site in narrowing(graph, self.deployment, 0.0, need_bytes).sites:
                graph = named(site.technique).apply(graph, site)
        return graph

    def _curve(
        self, chosen: Site | None, now: float, accuracies: Mapping[Site, float], prices: Mapping[Site, Price]
    ) -> tuple[InputSizeTrial, ...]:
        if not prices:
            return ()
        before_ms = next(iter(prices.values())).before_ms
        before = InputSizeTrial(self.graph.input_size, before_ms, now, chosen is None)
        smaller = (
            InputSizeTrial(size_of(site), price.after_ms, accuracies[site], site == chosen)
            for site, price in prices.items()
        )
        return (before, *smaller)


def _reached_ms(plain_ms: float, sketch_ms: float, effort: float) -> float:
    """Estimated latency after edits of this effort; at effort 1, that of the sketch with channels removed, too."""
    return float(plain_ms * (NARROWED * sketch_ms / plain_ms) ** effort)


def _applied(graph: Graph, site: Site) -> Graph | None:
    try:
        return named(site.technique).apply(graph, site)
    except (Unsupported, GraphError):
        return None  # an earlier edit has changed its layers
