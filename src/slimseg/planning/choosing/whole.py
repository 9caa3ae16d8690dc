"""Exact edits that let the phone's processors take more of a network, whether or not they save time here.

A layer that a processor does not take runs on the CPU, with a copy before and behind it. On the phone this costs more
than most edits save, but no machine without that processor can time it. So these edits come first, and stay even if
they make the network slower on the CPU: what they cost there is reported.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from slimseg.deployment import Deployment
from slimseg.errors import GraphError, SlimsegError, Unsupported
from slimseg.graph.graph import Graph
from slimseg.planning.choosing.exact import Check, PlannedEdit
from slimseg.planning.pricing import placing, whatif
from slimseg.progress import Progress
from slimseg.techniques import Site, Technique, named

MAX_EDITS = 64


class WholeEdits:
    """Makes such edits on one network; `run` updates `graph` and `edits`."""

    def __init__(
        self,
        graph: Graph,
        techniques: Sequence[Technique],
        deployment: Deployment,
        progress: Progress,
        check: Check,
        until: float = math.inf,
    ) -> None:
        """Prepare edits of `graph`; none is tried after `until`, a `time.monotonic()`."""
        self.graph = graph
        self.techniques = techniques
        self.deployment = deployment
        self.progress = progress
        self.check = check
        self.until = until
        self.guard = placing.Guard(deployment)
        self.edits: list[PlannedEdit] = []

    def run(self) -> WholeEdits:
        """Make edits until every processor takes everything, or no edit helps any more.

        Raises:
            RuntimeFailure: a processor's driver or compiler crashed on the network itself.
        """
        while len(self.edits) < MAX_EDITS and time.monotonic() < self.until:
            refused = self.guard.refused(self.graph)
            if not refused or not self._make_one(refused):
                break
        return self

    def _make_one(self, refused: dict[str, str]) -> bool:
        """Make the first edit that lets a processor take more; `refused`: processors by name of a layer they leave."""
        for site in self._sites(refused):
            if time.monotonic() >= self.until:
                return False
            try:
                after = named(site.technique).apply(self.graph, site)
            except (Unsupported, GraphError):
                continue
            if self.guard.gains(self.graph, after) and self.check(self.graph, after) is None:
                served = next(refused[layer] for layer in site.layers if layer in refused)
                self.progress.say(f"  {site.technique} at {site.layers[0]}, so that {served} takes it")
                self.edits.append(PlannedEdit(site, self._saving_ms(after), 0.0, serves=served))
                self.graph = after
                return True
        return False

    def _sites(self, refused: dict[str, str]) -> list[Site]:
        found = [site for technique in self.techniques for site in technique.find(self.graph).sites]
        return [site for site in found if not refused.keys().isdisjoint(site.layers)]

    def _saving_ms(self, after: Graph) -> float:
        """What the edit saves on the processor that is timed; negative where it costs time."""
        try:
            return whatif.compare(self.graph, after, self.deployment).saving_ms
        except SlimsegError:  # it is made for another processor, and a time that is unknown counts as none
            return 0.0
