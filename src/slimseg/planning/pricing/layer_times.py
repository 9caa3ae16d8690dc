"""Converts a profile by operator into milliseconds by graph node."""

from __future__ import annotations

from collections.abc import Mapping

from slimseg.graph.graph import Graph
from slimseg.graph.layer_names import worker
from slimseg.graph.names import node_name
from slimseg.results import Profile


def layer_times(graph: Graph, profile: Profile) -> dict[str, float]:
    """Milliseconds by node name, from a profile of the graph's own file or of one that slimseg wrote from the graph.

    An operator's time belongs to its main node: to the convolution, not to the batch norm or activation fused into it,
    which have no entry. An operator that does part of a layer's work (`<node>_gate`) counts for that layer.
    """
    nodes = {node.name for node in graph.layers()}
    times: dict[str, float] = {}
    for layer in profile.layers:
        name = node_name(worker(layer.name, layer.covers))
        if name in nodes:
            times[name] = times.get(name, 0.0) + layer.latency_ms
    return times


def part_ms(times: Mapping[str, float], names: list[str]) -> float | None:
    """Total milliseconds of these nodes; None if the profile has no time for any of them."""
    known = [times[name] for name in names if name in times]
    return sum(known) if known else None
