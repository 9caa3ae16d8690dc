"""Groups of channels that can only be removed together: a residual sum, concatenation or depthwise layer couples them.

channel_flow.py finds which channels are the same. The rules of the vocabulary cut them out of the layers; most of these
rules are torch-pruning's (Fang et al., "DepGraph: Towards Any Structural Pruning", 2023).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from slimseg.errors import GraphError, Unsupported
from slimseg.graph import ops
from slimseg.graph.channel_flow import Flow, flow
from slimseg.graph.channel_trace import Channels
from slimseg.graph.graph import Graph
from slimseg.graph.vocabulary import CutRule, Operator, operator_of

_Places = Mapping[str, "tuple[int, ...] | None"]


@dataclass(frozen=True)
class ChannelGroup:
    """Channels coupled over several layers, which are given by the names of their nodes.

    `outputs` and `inputs` hold, for each layer that loses output or input channels with the group, where its channels
    lie in that layer: entry k is the position of the group's channel k. A layer that reads the group several times has
    further entries for it at k + channels, k + 2·channels, ...
    """

    root: str
    channels: int
    outputs: Mapping[str, tuple[int, ...]]
    inputs: Mapping[str, tuple[int, ...]]
    fixed: str | None = None  # why the channels cannot be removed; None if they can


def channel_groups(graph: Graph) -> list[ChannelGroup]:
    """All groups of coupled channels, in execution order of their roots; the network's output channels are left out."""
    followed, own = flow(graph), _output_layers(graph)
    found = []
    for producers in _coupled(followed):
        # A group of linear layers only (inside a gate) is too small to be worth a cut.
        root = next((name for name in producers if graph.layer_as(graph.node(name), ops.CONVOLUTIONS)), None)
        if root is not None:
            found.append(_described(followed, root, producers))
    order = {node.name: position for position, node in enumerate(graph.module.graph.nodes)}
    return sorted((group for group in found if own.isdisjoint(group.outputs)), key=lambda group: order[group.root])


def without(graph: Graph, group: ChannelGroup, dropped: Sequence[int]) -> Graph:
    """A copy of the network without some channels of a group; the others keep their weights.

    Args:
        group: one of `channel_groups(graph)`.
        dropped: positions in the group, 0 to `channels` - 1; not all of them.

    Raises:
        Unsupported: the channels cannot be removed from the layers.
    """
    if group.fixed is not None:
        raise Unsupported(f"{group.root} cannot lose channels: {group.fixed}")
    leaving = set(dropped)
    if not 0 < len(leaving) < group.channels or not leaving <= set(range(group.channels)):
        raise Unsupported(f"{group.root} cannot lose {len(dropped)} of {group.channels} channels")
    result = graph.copy()
    for side, rule_of in ((group.outputs, _output_rule), (group.inputs, _input_rule)):
        for name, positions in side.items():
            places = [each for index, each in enumerate(positions) if index % group.channels in leaving]
            _cut(result, name, rule_of, places)
    try:
        result.refresh()
    except GraphError as error:
        raise Unsupported(f"{group.root} cannot lose channels: {error}") from error
    result.importance = {**graph.importance, **_importance_left(graph, group, leaving)}
    return result


def group_importance(graph: Graph, group: ChannelGroup) -> Tensor:
    """(channels,): how much each channel of a group matters.

    It is the sum over the group's layers of the importance measured on images (`Graph.importance`). If no layer of the
    group was measured, as after an edit, it is the sum of the squared norms of the filters (Li et al., "Pruning Filters
    for Efficient ConvNets", 2017, section 3.1), times the average ratio of importance to squared norm in the layers
    that were measured, so that both kinds of group can be compared.
    """
    measured = [
        graph.importance[name][list(positions)]
        for name, positions in group.outputs.items()
        if name in graph.importance and len(graph.importance[name]) == len(positions)
    ]
    if measured:
        return torch.stack(measured).sum(0)
    norms = [
        _squared_norms(graph, name)[list(positions)]
        for name, positions in group.outputs.items()
        if _makes_channels(graph, name)
    ]
    return _importance_of_norms(graph) * torch.stack(norms).sum(0)


def filters(layer: nn.Conv2d | nn.ConvTranspose2d | nn.Linear, weight: Tensor) -> Tensor:
    """(output channels, values per channel): a layer's weights, or a tensor of their shape, by output channel."""
    if isinstance(layer, nn.ConvTranspose2d):
        grouped = weight.reshape(layer.groups, -1, *weight.shape[1:])
        weight = grouped.transpose(1, 2).flatten(0, 1)
    return weight.flatten(1)


def _makes_channels(graph: Graph, name: str) -> bool:
    return graph.layer_as(graph.node(name), ops.MIXING) is not None


def _squared_norms(graph: Graph, name: str) -> Tensor:
    """(channels,): the squared norm of each filter of one layer."""
    layer = graph.layer(graph.node(name))
    assert isinstance(layer, ops.MIXING)
    return filters(layer, layer.weight.detach()).square().sum(1)


def _importance_of_norms(graph: Graph) -> float:
    """Ratio of measured importance to squared norms, summed over all measured layers; 1 if none was measured."""
    nodes = {node.name for node in graph.layers()}
    known = [name for name in graph.importance if name in nodes and _makes_channels(graph, name)]
    norms = sum(float(_squared_norms(graph, name).sum()) for name in known)
    return sum(float(graph.importance[name].sum()) for name in known) / norms if norms else 1.0


def _importance_left(graph: Graph, group: ChannelGroup, leaving: set[int]) -> dict[str, Tensor]:
    left = {}
    for name, positions in group.outputs.items():
        if name in graph.importance and len(graph.importance[name]) == len(positions):
            kept = torch.ones(len(positions), dtype=torch.bool)
            kept[[positions[channel] for channel in leaving]] = False
            left[name] = graph.importance[name][kept]
    return left


def _coupled(followed: Flow) -> list[list[str]]:
    """The layers that make channels, in sets; layers of which any channels are tied are in the same set."""
    sets: list[tuple[set[int], list[str]]] = []
    for name, channels in followed.made.items():
        touching = [each for each in sets if not each[0].isdisjoint(channels)]
        sets = [each for each in sets if each[0].isdisjoint(channels)]
        names = [other for _, others in touching for other in others]
        sets.append((set(channels).union(*(each for each, _ in touching)), [*names, name]))
    order = {name: position for position, name in enumerate(followed.made)}
    return [sorted(names, key=order.__getitem__) for _, names in sets]


def _described(followed: Flow, root: str, producers: Sequence[str]) -> ChannelGroup:
    channels = followed.made[root]
    own = {channel for name in producers for channel in followed.made[name]}
    owners = {**{name: followed.made[name] for name in producers}, **followed.held}
    outputs = {name: _positions(channels, value) for name, value in owners.items() if not own.isdisjoint(value)}
    inputs = {name: _positions(channels, value) for name, value in followed.read.items() if not own.isdisjoint(value)}
    fixed = next((followed.fixed[each] for each in (*channels, *sorted(own)) if each in followed.fixed), None)
    return ChannelGroup(
        root,
        len(channels),
        {name: value or () for name, value in outputs.items()},
        {name: value or () for name, value in inputs.items()},
        fixed or _uneven(followed, root, producers, outputs, inputs),
    )


def _uneven(followed: Flow, root: str, producers: Sequence[str], outputs: _Places, inputs: _Places) -> str | None:
    """Why the group's channels do not correspond one to one, if they do not."""
    count = len(followed.made[root])
    if len(set(followed.made[root])) < count:
        return "some of its channels are tied to each other"
    for name in producers:
        if set(followed.made[name]) != set(followed.made[root]):
            return f"only some of its channels are tied to those of {name}"
    several = [name for name, value in outputs.items() if value is None or len(value) != count]
    several += [name for name, value in inputs.items() if value is None]
    return f"{several[0]} contains some of its channels several times" if several else None


def _positions(channels: Channels, value: Channels) -> tuple[int, ...] | None:
    """Positions of the channels in `value`, then of their second occurrences, ...; None if some occur more often."""
    places: dict[int, list[int]] = {channel: [] for channel in channels}
    for position, channel in enumerate(value):
        if channel in places:
            places[channel].append(position)
    times = {len(each) for each in places.values()}
    if len(times) != 1:
        return None
    return tuple(places[channel][time] for time in range(times.pop()) for channel in channels)


def _output_rule(operator: Operator) -> CutRule | None:
    return operator.cut_outputs


def _input_rule(operator: Operator) -> CutRule | None:
    return operator.cut_inputs


def _cut(graph: Graph, name: str, rule_of: Callable[[Operator], CutRule | None], dropped: list[int]) -> None:
    layer = graph.layer(graph.node(name))
    operator = operator_of(layer)
    rule = rule_of(operator) if operator is not None else None
    if rule is None:
        raise Unsupported(f"{name} cannot lose channels: slimseg cannot remove them from {type(layer).__name__}")
    rule(layer, dropped)


def _output_layers(graph: Graph) -> set[str]:
    """Names of the layers that make the channels of the network's output, and of the nodes after them."""
    names: set[str] = set()
    waiting = [graph.output]
    while waiting:
        node = waiting.pop()
        if node.name not in names:
            names.add(node.name)
            if graph.layer_as(node, ops.MIXING) is None:
                waiting.extend(node.all_input_nodes)
    return names
