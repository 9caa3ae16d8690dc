"""Stages of a network: runs of layers at one resolution, with a single entry and a single exit.

A stage is grown backwards from its last layer: a layer whose readers all lie inside joins it. Whenever the part so far
reads a single value from outside, it could be replaced as a whole; the largest such part becomes the stage. So a stage
does not extend past a layer that a skip connection leaves from; residual branches and squeeze-and-excitation gates
belong to it, and the pooling or transposed convolution that resizes its input does not. The first spatial convolution
may have a stride; 1x1 convolutions before it, as in MobileNet, then work at the finer resolution.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import fx, nn

from slimseg.graph import costs, ops
from slimseg.graph.graph import Graph
from slimseg.graph.shapes import pair

MIN_CONVOLUTIONS = 2
_FOLLOWERS = (nn.BatchNorm2d, ops.Affine, *ops.ACTIVATIONS)  # these belong to the layer before them
_MEMBERS = (
    nn.Conv2d, *_FOLLOWERS, ops.Add, ops.Multiply, ops.Concat, ops.Slice, ops.Pad, ops.Reshape, ops.Transpose,
    nn.AdaptiveAvgPool2d, ops.Reduce,
)  # fmt: skip


@dataclass(frozen=True)
class Stage:
    """`layers` in execution order, of which the last is the target; from outside they read only `source`'s value."""

    source: fx.Node
    layers: tuple[fx.Node, ...]
    convolutions: int  # number of convolutions with kernels larger than 1x1

    @property
    def target(self) -> fx.Node:
        return self.layers[-1]


def stages(graph: Graph) -> list[Stage]:
    """All stages of at least two spatial convolutions, in execution order; no layer is in two of them."""
    last = _classifier(graph)
    found = [stage for node in graph.layers() for stage in _largest(graph, node) if last not in stage.layers]
    # among parts with equally many convolutions, prefer few channels at both ends: such ends lie between blocks
    found.sort(key=lambda stage: (-stage.convolutions, _channels(graph, stage), -len(stage.layers)))
    taken: set[fx.Node] = set()
    chosen = []
    for stage in found:
        if taken.isdisjoint(stage.layers):
            chosen.append(stage)
            taken.update(stage.layers)
    order = {node: index for index, node in enumerate(graph.layers())}
    return sorted(chosen, key=lambda stage: order[stage.target])


def between(graph: Graph, source: str, target: str) -> Stage | None:
    """The stage from the value of node `source` to node `target`; None if that part is not a stage."""
    names = {node.name: node for node in graph.layers()}
    if target not in names or not _may_end(graph, names[target]):
        return None
    return next((stage for stage in _grown(graph, names[target]) if stage.source.name == source), None)


def macs(graph: Graph, stage: Stage) -> int:
    return sum(costs.cost(graph, node).macs for node in stage.layers)


def spatial(graph: Graph, node: fx.Node) -> nn.Conv2d | None:
    """The node's convolution if its kernel is larger than 1x1."""
    layer = graph.layer_as(node, nn.Conv2d)
    return layer if layer is not None and pair(layer.kernel_size) != (1, 1) else None


def _channels(graph: Graph, stage: Stage) -> int:
    return graph.shape(stage.source)[1] + graph.shape(stage.target)[1]


def _classifier(graph: Graph) -> fx.Node:
    """The last convolution before the output."""
    node = graph.output
    while graph.layer_as(node, nn.Conv2d) is None and len(node.all_input_nodes) == 1:
        node = node.all_input_nodes[0]
    return node


def _largest(graph: Graph, target: fx.Node) -> list[Stage]:
    """The stages that end with `target` and have the most spatial convolutions."""
    if not _may_end(graph, target):
        return []
    grown = [stage for stage in _grown(graph, target) if stage.convolutions >= MIN_CONVOLUTIONS]
    most = max((stage.convolutions for stage in grown), default=0)
    return [stage for stage in grown if stage.convolutions == most]


def _grown(graph: Graph, target: fx.Node) -> Iterator[Stage]:
    """The parts that end with the target and read one value, in order of growing size."""
    order = {node: index for index, node in enumerate(graph.module.graph.nodes)}
    inside: set[fx.Node] = set()
    edge = {target}
    while edge:
        node = max(edge, key=order.__getitem__)
        if inside and len(edge) == 1 and _may_begin(graph, node):
            layers = tuple(sorted(inside, key=order.__getitem__))
            yield Stage(node, layers, sum(spatial(graph, each) is not None for each in layers))
        readers_inside = node is target or all(reader in inside for reader in node.users)
        if not readers_inside or not _may_join(graph, node, target):
            return
        inside.add(node)
        edge.remove(node)
        edge.update(node.all_input_nodes)


def _may_join(graph: Graph, node: fx.Node, target: fx.Node) -> bool:
    layer = graph.layer(node)
    if not isinstance(layer, _MEMBERS):
        return False
    if isinstance(layer, ops.Pad) or len(graph.shape(node)) != 4:
        return True
    side, wanted = graph.shape(node)[2:], graph.shape(target)[2:]
    if side in (wanted, (1, 1)):
        return True
    finer = tuple(-(-length // 2) for length in side) == wanted
    return finer and spatial(graph, node) is None  # a layer before the stage's strided convolution


def _may_begin(graph: Graph, node: fx.Node) -> bool:
    if len(graph.shape(node)) != 4 or isinstance(graph.layer(node), ops.Pad):
        return False
    return not any(graph.layer_as(reader, _FOLLOWERS) for reader in node.users)


def _may_end(graph: Graph, node: fx.Node) -> bool:
    return len(graph.shape(node)) == 4 and _may_begin(graph, node) and not isinstance(graph.layer(node), ops.Slice)
