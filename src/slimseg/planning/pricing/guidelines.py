"""ShuffleNetV2's four guidelines as findings: where a network spends time on other work than multiply-accumulates.

    G1  equal channels      a 1x1 convolution from I to O channels moves hw(I + O) + IO values for hw·IO MACs; for a
                            fixed number of MACs, this is least at I = O
    G2  few groups          grouped convolutions, compared with the MACs per second of the network's full convolutions
    G3  few fragments       three or more short branches that read one value, compared with the same rate
    G4  element-wise work   operators without MACs: activations that were not fused, sums, products, scales

Each finding follows from the graph and the times of its profile. It is an upper bound that no edit has confirmed, and
one operator may count in several findings. Source: Ma et al., "ShuffleNet V2: Practical Guidelines for Efficient CNN
Architecture Design", 2018, section 2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from torch import fx, nn

from slimseg.graph import costs, ops
from slimseg.graph.graph import Graph, only_consumer
from slimseg.planning.pricing.spent import Spent
from slimseg.results import Finding
from slimseg.techniques.technique import dimensions

WORTH_SHARE = 0.01  # share of the latency below which a finding is left out
UNEQUAL = 4.0  # ratio of a 1x1 convolution's larger to its smaller number of channels from which on it counts for G1
BRANCHES = 3  # number of parallel branches from which on they count for G3
_BRANCHING = (*ops.CONVOLUTIONS, *ops.POOLINGS)


def guidelines(graph: Graph, times: Mapping[str, float], latency_ms: float) -> tuple[Finding, ...]:
    """One finding for each guideline that could save at least `WORTH_SHARE`; `times`: milliseconds by node name."""
    timed = {node: times[node.name] for node in graph.layers() if times.get(node.name, 0.0) > 0}
    found = (each(graph, timed, latency_ms) for each in (_unequal_channels, _groups, _fragments, _element_wise))
    return tuple(each for each in found if each is not None and each.share >= WORTH_SHARE)


_Times = Mapping[fx.Node, float]


def _unequal_channels(graph: Graph, timed: _Times, latency_ms: float) -> Finding | None:
    moved = {}
    for node in timed:
        layer = graph.layer_as(node, nn.Conv2d)
        if layer is not None and layer.kernel_size == (1, 1) and layer.groups == 1 and _ratio(layer) >= UNEQUAL:
            moved[node] = _bytes_over_least(graph, node, layer)
    if not moved:
        return None
    nodes = _slowest_first(timed, moved)
    after = sum(timed[node] / moved[node] for node in nodes)
    reason = (
        f"{_counted(nodes, '1x1 convolution')} with channels that differ {UNEQUAL:.0f}-fold or more, the slowest "
        f"{nodes[0].name} to {dimensions(graph, nodes[0])}: it moves {moved[nodes[0]]:.1f} times the bytes of one with "
        "as many MACs and equal channels"
    )
    return _spent(timed, nodes, after, latency_ms).finding("G1: unequal channels", reason)


def _groups(graph: Graph, timed: _Times, latency_ms: float) -> Finding | None:
    grouped = [
        node
        for node in timed
        if (layer := graph.layer_as(node, nn.Conv2d)) is not None and 1 < layer.groups < layer.in_channels
    ]
    return _at_full_rate(graph, timed, grouped, "G2: groups", "grouped convolution", latency_ms)


def _fragments(graph: Graph, timed: _Times, latency_ms: float) -> Finding | None:
    nodes = [
        node
        for source in graph.module.graph.nodes
        if len(branches := _branches(graph, source)) >= BRANCHES
        for branch in branches
        for node in branch
        if node in timed
    ]
    what = "layer in parallel branches"
    return _at_full_rate(graph, timed, list(dict.fromkeys(nodes)), "G3: fragments", what, latency_ms)


def _element_wise(graph: Graph, timed: _Times, latency_ms: float) -> Finding | None:
    nodes = _slowest_first(timed, [node for node in timed if isinstance(graph.layer(node), ops.ELEMENT_WISE)])
    if not nodes:
        return None
    spent = _spent(timed, nodes, 0.0, latency_ms)
    reason = (
        f"{_counted(nodes, 'operator')} without a MAC take {spent.before_ms / latency_ms:.0%} of the time, the slowest "
        f"{nodes[0].name} of {dimensions(graph, nodes[0])} with {timed[nodes[0]]:.2g} ms"
    )
    return spent.finding("G4: element-wise operators", reason)


def _branches(graph: Graph, source: fx.Node) -> list[list[fx.Node]]:
    """The parallel branches that read one value, each up to the node where it joins another branch or splits."""
    branches = []
    for reader in source.users:
        if graph.layer_as(reader, _BRANCHING) is None:
            continue
        branch = [reader]
        while (after := only_consumer(branch[-1])) is not None and len(after.all_input_nodes) == 1:
            branch.append(after)
        branches.append(branch)
    return branches


def _at_full_rate(
    graph: Graph, timed: _Times, nodes: Sequence[fx.Node], name: str, what: str, latency_ms: float
) -> Finding | None:
    """A finding: the time that `nodes` would take if they computed at the rate of the network's full convolutions."""
    full = [node for node in timed if _is_full(graph, node) and node not in nodes]
    if not nodes or not full:
        return None
    rate = _rate(graph, timed, full)
    nodes = _slowest_first(timed, nodes)
    after = min(sum(timed[node] for node in nodes), sum(costs.cost(graph, node).macs for node in nodes) / rate)
    reason = (
        f"{_counted(nodes, what)}: {_rate(graph, timed, nodes) / 1e6:.2g} GMAC/s, while the network's ungrouped "
        f"convolutions reach {rate / 1e6:.2g}; the slowest is {nodes[0].name} to {dimensions(graph, nodes[0])}"
    )
    return _spent(timed, nodes, after, latency_ms).finding(name, reason)


def _spent(timed: _Times, nodes: Sequence[fx.Node], after_ms: float, latency_ms: float) -> Spent:
    return Spent([node.name for node in nodes], sum(timed[node] for node in nodes), after_ms, latency_ms)


def _rate(graph: Graph, timed: _Times, nodes: Sequence[fx.Node]) -> float:
    """MACs per millisecond."""
    return sum(costs.cost(graph, node).macs for node in nodes) / sum(timed[node] for node in nodes)


def _is_full(graph: Graph, node: fx.Node) -> bool:
    layer = graph.layer_as(node, nn.Conv2d)
    return layer is not None and layer.groups == 1


def _ratio(layer: nn.Conv2d) -> float:
    return max(layer.in_channels, layer.out_channels) / min(layer.in_channels, layer.out_channels)


def _bytes_over_least(graph: Graph, node: fx.Node, layer: nn.Conv2d) -> float:
    """Values moved, divided by those of a 1x1 convolution with as many MACs and equal numbers of channels."""
    weights = layer.in_channels * layer.out_channels
    height, width = graph.shape(node)[2:]
    least = 2 * height * width * math.sqrt(weights) + weights
    return (height * width * (layer.in_channels + layer.out_channels) + weights) / least


def _slowest_first(timed: _Times, nodes: Sequence[fx.Node] | Mapping[fx.Node, float]) -> list[fx.Node]:
    return sorted(nodes, key=lambda node: -timed[node])


def _counted(nodes: Sequence[fx.Node], what: str) -> str:
    first, _, rest = what.partition(" in ")
    return f"{len(nodes)} {first}{'s' if len(nodes) > 1 else ''}{f' in {rest}' if rest else ''}"
