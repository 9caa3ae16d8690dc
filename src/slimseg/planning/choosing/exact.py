"""Applies exact edits in rounds: find all sites, time all, make the edits that pay, and search again.

The sites of a round are timed together, equal ones only once. Of the edits that save more than noise, those that do not
share layers are made at once, the largest saving first. Then the whole network is timed and checked before and after.
If it is not faster or fails the check, the round is halved until the faulty edits are found, undone and reported.
Further rounds follow, as one edit may make another possible (a transposed convolution becomes a depth to space, which
can move further back).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from slimseg.deployment import Deployment
from slimseg.errors import GraphError, Unsupported
from slimseg.graph.graph import Graph
from slimseg.planning.pricing import alike, placing, whatif
from slimseg.planning.pricing.whatif import Price
from slimseg.progress import Progress
from slimseg.results import Refusal
from slimseg.techniques import Settings, Site, Technique, named

Check = Callable[[Graph, Graph], str | None]  # (before, after) to the reason against an edit, or None
SURE = 0.75  # share of the timed rounds in which an edit must be faster; less counts as noise
SURE_OF_THE_WHOLE = 0.5  # the same share where all edits of a round are timed together
WORTH_SHARE = 0.0003  # edits that save a smaller share of the network's latency are left out
MAX_ROUNDS = 12
NO_TIME = "one of the edits made with it does not pay, and there was no time to find out which"


@dataclass(frozen=True)
class PlannedEdit:
    site: Site
    predicted_saving_ms: float  # by its what-if; replaced by the saving in place as soon as that is measured
    damage: float  # percent of pixels that change class before recovery
    alone_saving_ms: float | None = None  # by its what-if, once `predicted_saving_ms` has been replaced
    serves: str = ""  # the processor that takes more of the network after it; empty if it only has to save time
    with_previous: bool = False  # report it with the edit before: their separate savings are not known precisely

    def at_pace(self, pace: float) -> PlannedEdit:
        """The same edit with its savings on a machine that takes `pace` times as long."""
        alone = None if self.alone_saving_ms is None else pace * self.alone_saving_ms
        return replace(self, predicted_saving_ms=pace * self.predicted_saving_ms, alone_saving_ms=alone)


class ExactEdits:
    """Makes exact edits on one network; `run` updates `graph`, `edits` and `refusals`."""

    def __init__(
        self,
        graph: Graph,
        techniques: Sequence[Technique],
        deployment: Deployment,
        progress: Progress,
        check: Check,
        until: float = math.inf,
    ) -> None:
        """Prepare edits of `graph`.

        After `until`, a `time.monotonic()`, no round begins and none is halved, and sites that have not been timed are
        refused.
        """
        self.graph = graph
        self.techniques = techniques
        self.deployment = deployment
        self.progress = progress
        self.check = check
        self.until = until
        self.guard = placing.Guard(deployment)
        self.edits: list[PlannedEdit] = []
        self.refusals: list[Refusal] = []
        self._refused: set[tuple[str, tuple[str, ...], Settings]] = set()
        self._latency_ms: float | None = None

    def run(self) -> ExactEdits:
        for _ in range(MAX_ROUNDS):
            if self._is_late:
                break
            prices = self._price(self._find())
            if not prices:
                break
            self._make(self._apart(prices))
        return self

    @property
    def _is_late(self) -> bool:
        return time.monotonic() >= self.until

    def _find(self) -> list[Site]:
        sites = []
        for technique in self.techniques:
            found = technique.find(self.graph)
            self._add(found.refusals)
            sites += [site for site in found.sites if _key(site) not in self._refused]
        return [site for site in sites if not site.whole or self._is_late or self._possible(site)]

    def _possible(self, site: Site) -> bool:
        """Whether `check` accepts an edit of the whole network; tested before timing, as its output may be unwanted."""
        if self.check(self.graph, named(site.technique).apply(self.graph, site)) is None:
            return True
        self._refused.add(_key(site))
        return False

    def _price(self, sites: Sequence[Site]) -> dict[Site, Price]:
        """Prices of the sites that pay; all other sites are refused."""
        priced = alike.price_alike(self.graph, sites, self.deployment, self.progress, until=self.until)
        self._add(priced.refusals)
        self._refused.update(_key(site) for site in sites if site not in priced.prices)
        pays = {}
        for site, price in priced.prices.items():
            reason = price.objection(SURE, WORTH_SHARE * self._whole_ms())
            if reason is None:
                pays[site] = price
            else:
                self._refuse(site, reason)
        return pays

    def _whole_ms(self) -> float:
        if self._latency_ms is None:
            self._latency_ms = whatif.latency_ms(self.graph, self.deployment)
        return self._latency_ms

    def _apart(self, prices: dict[Site, Price]) -> list[PlannedEdit]:
        """The edits that save most and share no layers; the next round finds the remaining sites again."""
        chosen: list[PlannedEdit] = []
        taken: set[str] = set()
        for site, price in sorted(prices.items(), key=lambda each: -each[1].saving_ms):
            if taken.isdisjoint(site.layers):
                taken.update(site.layers)
                chosen.append(PlannedEdit(site, price.saving_ms, 0.0))
        # Put equal edits next to each other, so that they are measured and reported together in the end.
        return sorted(chosen, key=lambda edit: (edit.site.technique, repr(edit.site.settings)))

    def _make(self, edits: Sequence[PlannedEdit]) -> None:
        after, made = self.graph, []
        for edit in edits:
            try:
                after = named(edit.site.technique).apply(after, edit.site)
            except (Unsupported, GraphError):
                continue  # another edit of this round changed its layers; the next round finds it again if it remains
            made.append(edit)
        objection = self._objection(after) if made else None
        if objection is None:
            self.graph = after
            self.edits += made
        elif len(made) == 1:
            self._refuse(made[0].site, objection)
        elif self._is_late:
            for edit in made:
                self._refuse(edit.site, NO_TIME)
        else:
            middle = len(made) // 2
            self._make(made[:middle])
            self._make(made[middle:])

    def _objection(self, after: Graph) -> str | None:
        reason = self.check(self.graph, after)
        if reason is not None:
            return reason
        reason = self.guard.objection_to(self.graph, after)
        if reason is not None:
            return reason
        reason = whatif.compare(self.graph, after, self.deployment).objection(SURE_OF_THE_WHOLE)
        return reason and f"in the whole network: {reason}"

    def _refuse(self, site: Site, reason: str) -> None:
        self._refused.add(_key(site))
        self._add([site.refused(reason)])

    def _add(self, refusals: Sequence[Refusal]) -> None:
        self.refusals += [refusal for refusal in refusals if refusal not in self.refusals]


def same_kind(before: Graph, after: Graph) -> str | None:
    """The reason against an edit that changes the kind of output that the user wants, or None."""
    if before.description.output_kind == after.description.output_kind:
        return None
    return f"its output would be {after.description.output_kind} instead of {before.description.output_kind}"


def _key(site: Site) -> tuple[str, tuple[str, ...], Settings]:
    return site.technique, site.layers, site.settings
