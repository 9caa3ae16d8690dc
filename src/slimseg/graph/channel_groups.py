"""Channels that can only be left out together: what a residual sum, a concatenation or a depthwise layer ties.

The dependencies between layers are torch-pruning's (Fang et al., "DepGraph: Towards Any Structural Pruning", 2023,
section 3.2); which of its groups are safe to cut in a Graph is decided here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch_pruning
from torch import Tensor, fx, nn

from slimseg.errors import GraphError, Unsupported
from slimseg.graph import edit, ops
from slimseg.graph.graph import Graph

# Layers that work on each channel alone, so that a channel may leave on either side of them.
_CHANNELWISE: tuple[type[nn.Module], ...] = (
    *ops.PLAIN_ACTIVATIONS,
    *ops.POOLINGS,
    nn.BatchNorm2d,
    nn.PReLU,
    ops.Resize,
    ops.Add,
    ops.Subtract,
    ops.Multiply,
    ops.Divide,
    ops.Maximum,
    ops.Minimum,
)
_MIXING = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


@dataclass(frozen=True)
class ChannelGroup:
    """Channels coupled over several layers; names are those of nodes.

    `outputs` and `inputs` hold, for each layer that loses output or input channels with the group, the position of
    the group's channel k in that layer.
    """

    root: str
    channels: int
    outputs: Mapping[str, tuple[int, ...]]
    inputs: Mapping[str, tuple[int, ...]]


def channel_groups(graph: Graph) -> list[ChannelGroup]:
    """All groups of coupled channels, in execution order of their roots; the output's own channels are none."""
    order = {node.name: position for position, node in enumerate(graph.module.graph.nodes)}
    found = [_described(graph, group, order) for group in _groups(graph)]
    own = _output_layers(graph)
    return sorted((group for group in found if own.isdisjoint(group.outputs)), key=lambda group: order[group.root])


def obstacle(graph: Graph, group: ChannelGroup) -> str | None:
    """Why the group's channels cannot be cut, if they cannot."""
    for name in (*group.outputs, *group.inputs):
        other = edit.shared_with(graph, graph.node(name))
        if other:
            return f"{name} shares its weights with {other}"
    uneven = next((name for name, positions in group.outputs.items() if len(positions) != group.channels), None)
    if uneven is not None:
        return f"only some of its channels are tied to those of {uneven}"
    for node in _reached(graph, group):
        if node.name in group.inputs:
            continue
        layer = graph.layer(node)
        if not _works_on_each(graph, node):
            kind = "the output" if layer is None and node.op == "output" else type(layer).__name__
            return f"its channels go on to {node.name}, {kind}, which they would change"
    return None


def without(graph: Graph, group: ChannelGroup, dropped: Sequence[int]) -> Graph:
    """The network without some channels of a group; the others keep their weights.

    Args:
        dropped: positions in the group, 0 to `channels` - 1; not all of them.

    Raises:
        Unsupported: the layers cannot go without these channels.
    """
    if not 0 < len(dropped) < group.channels:
        raise Unsupported(f"{group.root} cannot lose {len(dropped)} of {group.channels} channels")
    result = graph.copy()
    dependencies = _dependencies(result)
    layer = result.layer(result.node(group.root))
    assert layer is not None
    prune = dependencies.get_pruner_of_module(layer).prune_out_channels
    try:
        dependencies.get_pruning_group(layer, prune, sorted(dropped)).prune()
        result.refresh()
    except (GraphError, RuntimeError, IndexError, ValueError) as error:
        raise Unsupported(f"{group.root} cannot lose channels: {error}") from error
    result.importance = {**graph.importance, **_importance_left(graph, group, dropped)}
    return result


def group_importance(graph: Graph, group: ChannelGroup) -> Tensor:
    """(channels,): how much each channel of a group matters.

    The sum over its layers of what was measured on images (`Graph.importance`); where nothing was, of the squared norms
    of its filters (Li et al., "Pruning Filters for Efficient ConvNets", 2017, section 3.1).
    """
    measured = [
        graph.importance[name][list(positions)] for name, positions in group.outputs.items() if name in graph.importance
    ]
    return torch.stack(measured or list(_squared_norms(graph, group))).sum(0)


def _squared_norms(graph: Graph, group: ChannelGroup) -> Iterator[Tensor]:
    for name, positions in group.outputs.items():
        layer = graph.layer(graph.node(name))
        if isinstance(layer, _MIXING):
            filters = layer.weight.detach()
            filters = filters.transpose(0, 1) if isinstance(layer, nn.ConvTranspose2d) else filters
            yield filters.flatten(1).square().sum(1)[list(positions)]


def _importance_left(graph: Graph, group: ChannelGroup, dropped: Sequence[int]) -> dict[str, Tensor]:
    left = {}
    for name, positions in group.outputs.items():
        if name in graph.importance:
            kept = torch.ones(len(graph.importance[name]), dtype=torch.bool)
            kept[[positions[channel] for channel in dropped]] = False
            left[name] = graph.importance[name][kept]
    return left


def _dependencies(graph: Graph) -> torch_pruning.DependencyGraph:
    parameters = list(graph.module.parameters())
    trainable = [parameter.requires_grad for parameter in parameters]
    example = torch.zeros(graph.input_shape)
    # torch-pruning follows gradients, so every layer needs some.
    graph.module.requires_grad_(True)
    try:
        return torch_pruning.DependencyGraph().build_dependency(graph.module, example, verbose=False)
    finally:
        for parameter, was in zip(parameters, trainable, strict=True):
            parameter.requires_grad_(was)


def _groups(graph: Graph) -> list[torch_pruning.Group]:
    kinds = [nn.Conv2d, nn.ConvTranspose2d]
    return list(_dependencies(graph).get_all_groups(root_module_types=kinds))


def _described(graph: Graph, group: torch_pruning.Group, order: Mapping[str, int]) -> ChannelGroup:
    nodes = {id(graph.layer(node)): node.name for node in graph.layers() if node.op == "call_module"}
    outputs: dict[str, tuple[int, ...]] = {}
    inputs: dict[str, tuple[int, ...]] = {}
    for dependency, positions in group:
        name = nodes.get(id(dependency.target.module))
        if name is not None:
            side = outputs if dependency.handler.__name__ == "prune_out_channels" else inputs
            side.setdefault(name, tuple(positions))
    producers = [name for name in outputs if graph.layer_as(graph.node(name), _MIXING) is not None]
    return ChannelGroup(min(producers, key=order.__getitem__), len(group[0].idxs), outputs, inputs)


def _output_layers(graph: Graph) -> set[str]:
    """Layers whose channels are those of the result."""
    names: set[str] = set()
    waiting = [graph.output]
    while waiting:
        node = waiting.pop()
        if node.name not in names:
            names.add(node.name)
            if graph.layer_as(node, _MIXING) is None:
                waiting.extend(node.all_input_nodes)
    return names


def _reached(graph: Graph, group: ChannelGroup) -> Iterator[fx.Node]:
    """Nodes that read the group's channels, those that first mix them included."""
    seen: set[fx.Node] = set()
    waiting = [user for name in group.outputs for user in graph.node(name).users]
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        yield node
        if node.name not in group.inputs:
            waiting.extend(node.users)


def _works_on_each(graph: Graph, node: fx.Node) -> bool:
    layer = graph.layer(node)
    if isinstance(layer, nn.Conv2d):
        return layer.groups == layer.in_channels == layer.out_channels > 1
    if isinstance(layer, ops.Pad):
        return not any(layer.channels)
    if isinstance(layer, ops.Concat):
        return layer.dim in (1, -3)
    if isinstance(layer, ops.Resize):
        return True
    channels = {graph.shape(each)[1] for each in node.all_input_nodes if len(graph.shape(each)) == 4}
    return isinstance(layer, _CHANNELWISE) and len(channels) == 1
