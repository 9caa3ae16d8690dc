"""From a profile by operator to milliseconds by graph node."""

from __future__ import annotations

from collections.abc import Mapping

from slimseg.graph.graph import Graph
from slimseg.graph.names import node_name
from slimseg.results import Profile
from slimseg.runtimes.layer_names import worker


def layer_times(graph: Graph, profile: Profile) -> dict[str, float]:
    """Milliseconds by node, of a profile of the graph's own file or of one that slimseg wrote of it.

    An operator's time belongs to the node that does the work: the convolution, not the batch norm or activation fused
    into it, which have no entry. One that does a part of a layer's work (`<node>_gate`) counts for that layer.
    """
    nodes = {node.name for node in graph.layers()}
    times: dict[str, float] = {}
    for layer in profile.layers:
        name = node_name(worker(layer.name, layer.covers))
        if name in nodes:
            times[name] = times.get(name, 0.0) + layer.latency_ms
    return times


def part_ms(times: Mapping[str, float], names: list[str]) -> float | None:
    """What these nodes took together; None where the profile tells of none of them."""
    known = [times[name] for name in names if name in times]
    return sum(known) if known else None
