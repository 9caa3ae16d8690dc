"""The time that layers take in the profile of the whole network, turned into a finding of how much could be saved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from slimseg.results import Finding, Needs
from slimseg.techniques.technique import ARTICLE


@dataclass(frozen=True)
class Spent:
    """Some layers' part of the network's latency (`before_ms` of `whole_ms`), and what would remain (`after_ms`)."""

    layers: Sequence[str]
    before_ms: float
    after_ms: float
    whole_ms: float

    def finding(
        self,
        name: str,
        reason: str,
        needs: Needs = "images",
        paper: str = f"{ARTICLE}, section 3.4",
        basis: Literal["what-if", "profile"] = "profile",
    ) -> Finding:
        """A finding on these layers; with the basis "profile" its saving is an upper bound that no edit confirmed."""
        return Finding(
            technique=name,
            layers=tuple(self.layers),
            needs=needs,
            before_ms=self.before_ms,
            after_ms=self.after_ms,
            whole_ms=self.whole_ms,
            reason=reason,
            paper=paper,
            layers_ms=self.before_ms,
            basis=basis,
        )
