"""From a profile by operator to milliseconds by graph node."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from slimseg.graph.graph import Graph
from slimseg.graph.names import node_name
from slimseg.results import Profile, Result, Roof
from slimseg.runtimes.layer_names import worker

_BEFORE_THE_RUNS = ("load_ms", "prepare_ms", "first_run_ms")


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


def at_latency(profile: Profile, latency_ms: float) -> Profile:
    """The profile with all its times in proportion to a latency that was measured beside others.

    What disturbs a run takes its milliseconds anywhere, so the layers' shares stay about what they are.
    """
    pace = latency_ms / profile.latency_ms if profile.latency_ms else 1.0
    paced: Profile = replace(_at_pace(profile, pace), latency_ms=latency_ms)
    return paced


def _at_pace(told: Any, pace: float) -> Any:
    """Every time of the runs, by its name, that a result and the results within it have."""
    if isinstance(told, Roof):
        bandwidth = tuple((size, rate / pace) for size, rate in told.bandwidth)
        return replace(told, gmac_per_s=told.gmac_per_s / pace, bandwidth=bandwidth)
    changed = {}
    for name in (field.name for field in fields(told)):
        value = getattr(told, name)
        if name.endswith("_ms") and name not in _BEFORE_THE_RUNS:
            changed[name] = value * pace
        elif isinstance(value, Result):
            changed[name] = _at_pace(value, pace)
        elif isinstance(value, tuple) and value and isinstance(value[0], Result):
            changed[name] = tuple(_at_pace(each, pace) for each in value)
    return replace(told, **changed)


def part_ms(times: Mapping[str, float], names: list[str]) -> float | None:
    """What these nodes took together; None where the profile tells of none of them."""
    known = [times[name] for name in names if name in times]
    return sum(known) if known else None
