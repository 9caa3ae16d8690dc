"""From a profile by operator to milliseconds by graph node."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from torch import fx, nn

from slimseg.graph import ops
from slimseg.graph.graph import Graph, only_consumer
from slimseg.graph.names import node_name
from slimseg.results import Profile, Result, Roof

_BEFORE_THE_RUNS = ("load_ms", "prepare_ms", "first_run_ms")
_TAKEN_IN = (nn.BatchNorm2d, nn.Tanh, nn.Hardtanh, nn.ReLU, nn.ReLU6)  # what an operator computes on its way out


def layer_times(graph: Graph, profile: Profile) -> dict[str, float]:
    """Milliseconds by node, of a profile of the graph's own file or of one that slimseg wrote of it.

    An operator is named after its output. Its time belongs to the node that does the work: the convolution, not the
    batch norm or activation fused into it, which have no entry. An operator that helps a layer (`<node>_gate`) counts
    for that layer.
    """
    nodes = {node.name: node for node in graph.layers()}
    operators = {node_name(layer.name) for layer in profile.layers}
    times: dict[str, float] = {}
    for layer in profile.layers:
        owner = _owner(node_name(layer.name), nodes)
        if owner is not None:
            name = _worker(graph, owner, operators).name
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


def _owner(name: str, nodes: Mapping[str, fx.Node]) -> fx.Node | None:
    while name not in nodes and "_" in name:
        name = name.rpartition("_")[0]
    return nodes.get(name)


def _worker(graph: Graph, node: fx.Node, operators: set[str]) -> fx.Node:
    """The first of the nodes that one operator computes."""
    while graph.layer_as(node, _TAKEN_IN) is not None:
        source = node.args[0]
        if not isinstance(source, fx.Node) or source.name in operators or only_consumer(source) is not node:
            break
        if graph.layer(source) is None or graph.layer_as(source, ops.Pad) is not None:
            break
        node = source
    return node
