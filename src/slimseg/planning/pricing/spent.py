"""Time that layers took in the profile of the whole network, and how much of it something found there could save."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from slimseg.results import Finding, Needs
from slimseg.techniques.technique import ARTICLE


@dataclass(frozen=True)
class Spent:
    """What some layers took of the network's latency, and what is left of it if what is found there goes."""

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
        """With the basis "profile" an upper bound, which no edit has confirmed."""
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
