"""A plan: the edits in their order with their predicted savings, and how to apply them to the original again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from slimseg.graph.graph import Graph
from slimseg.planning.choosing.exact import PlannedEdit
from slimseg.results import InputSizeTrial, Refusal
from slimseg.techniques import Site, named


@dataclass(frozen=True)
class Plan:
    """The edits in order. `graph` contains `edits` but not `rewrites`, which are applied after training."""

    graph: Graph
    edits: tuple[PlannedEdit, ...]
    refusals: tuple[Refusal, ...]
    rewrites: tuple[PlannedEdit, ...] = ()
    importance: Mapping[str, Tensor] = field(default_factory=dict)  # of the original's channels; empty if not measured
    input_sizes: tuple[InputSizeTrial, ...] = ()
    start_ms: float | None = None  # latency of the file before the first edit, when the edits were timed in place

    def as_dict(self) -> dict[str, Any]:
        """All fields except the graph, as JSON values."""
        importance = {name: values.tolist() for name, values in self.importance.items()}
        lists = ("edits", "rewrites", "refusals", "input_sizes")
        told = {name: [asdict(each) for each in getattr(self, name)] for name in lists}
        return told | {"importance": importance, "start_ms": self.start_ms}

    @classmethod
    def replayed(cls, original: Graph, values: Mapping[str, Any]) -> Plan:
        """The plan from the values of `as_dict`, with its edits applied again to the network it was made for."""
        importance = {name: torch.tensor(each) for name, each in values["importance"].items()}
        edits, rewrites = (tuple(_edit(each) for each in values[name]) for name in ("edits", "rewrites"))
        refusals = tuple(Refusal(**each) for each in values["refusals"])
        sizes = tuple(
            InputSizeTrial(**{**each, "input_size": tuple(each["input_size"])}) for each in values["input_sizes"]
        )
        graph = _made(original, edits, importance)
        return cls(graph, edits, refusals, rewrites, importance, sizes, values.get("start_ms"))

    def without(self, original: Graph, sites: Sequence[Site]) -> Plan:
        """The plan without some of its edits.

        Raises:
            Unsupported, GraphError: another edit depends on them.
        """
        edits, rewrites = (
            tuple(each for each in kept if each.site not in sites) for kept in (self.edits, self.rewrites)
        )
        graph = _made(original, edits, self.importance)
        _made(graph, rewrites, {})
        return replace(self, graph=graph, edits=edits, rewrites=rewrites)


def _made(original: Graph, edits: Sequence[PlannedEdit], importance: Mapping[str, Tensor]) -> Graph:
    graph = original.copy()
    graph.importance = importance
    for each in edits:
        graph = named(each.site.technique).apply(graph, each.site)
    return graph


def _edit(values: Mapping[str, Any]) -> PlannedEdit:
    site = values["site"]
    settings = named(site["technique"]).settings(**_with_tuples(site["settings"]))
    return PlannedEdit(**{**values, "site": Site(**_with_tuples({**site, "settings": settings}))})


def _with_tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` with lists turned into tuples: JSON has no tuples, which sites and settings need."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
