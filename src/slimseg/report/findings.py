"""Groups findings for a reader: variants of one site, sites of one technique."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from slimseg import ratios
from slimseg.results import Finding, Needs

NOTABLE_SHARE = 0.002  # share of the latency that all sites of a technique must save to be shown
HEADLINES = 3
EVERYWHERE = "input size"  # the technique that saves much in every network
SURE = 0.03  # share of a part's own time; smaller savings are within the noise of a what-if


@dataclass(frozen=True)
class SiteGroup:
    """One site and its variants, of which only one can be applied; the one that saves most first."""

    best: Finding
    others: tuple[Finding, ...]

    @property
    def gains(self) -> bool:
        return self.best.saving_ms > SURE * self.best.before_ms and self.best.is_measurable


@dataclass(frozen=True)
class TechniqueGroup:
    """All sites of one technique with the same needs, the one that saves most first."""

    technique: str
    needs: Needs
    basis: str
    sites: tuple[SiteGroup, ...]

    @property
    def is_notable(self) -> bool:
        return self.share >= NOTABLE_SHARE

    @property
    def gaining(self) -> tuple[SiteGroup, ...]:
        return tuple(site for site in self.sites if site.gains)

    @property
    def saving_ms(self) -> float:
        """Milliseconds saved by the best variants of all sites that gain; overlapping sites count once."""
        best = [site.best for site in self.gaining]
        return ratios.together([each.saving_ms for each in best], [each.before_ms for each in best], self._whole_ms)

    @property
    def share(self) -> float:
        """Share of the network's latency that is saved."""
        return ratios.share(self.saving_ms, self._whole_ms)

    @property
    def _whole_ms(self) -> float:
        return self.sites[0].best.whole_ms


def grouped(findings: Iterable[Finding]) -> list[TechniqueGroup]:
    """Groups in the order of the findings' needs; groups with the same needs by saving."""
    sites: dict[tuple[Needs, str, str], dict[tuple[str, ...], list[Finding]]] = {}
    for each in findings:
        own = sites.setdefault((each.needs, each.basis, each.technique), {})
        own.setdefault(each.layers, []).append(each)
    groups = [
        TechniqueGroup(technique, needs, basis, _by_saving(own.values()))
        for (needs, basis, technique), own in sites.items()
    ]
    order = list(dict.fromkeys(group.needs for group in groups))
    return sorted(groups, key=lambda group: (order.index(group.needs), group.basis != "what-if", -group.saving_ms))


def headline(groups: Iterable[TechniqueGroup]) -> list[TechniqueGroup]:
    """The techniques that save most, whatever they need.

    A smaller input is left out here: it saves much in every network, so it says nothing about this one.
    """
    own = [group for group in groups if group.basis == "what-if" and group.is_notable and group.technique != EVERYWHERE]
    return sorted(own, key=lambda group: -group.saving_ms)[:HEADLINES]


def _by_saving(sites: Iterable[list[Finding]]) -> tuple[SiteGroup, ...]:
    ranked = [sorted(variants, key=lambda each: -each.saving_ms) for variants in sites]
    ranked.sort(key=lambda variants: -variants[0].saving_ms)
    return tuple(SiteGroup(variants[0], tuple(variants[1:])) for variants in ranked)
