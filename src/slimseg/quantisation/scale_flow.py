"""Which channels may be scaled, and which only together: followed from the layer that makes them to their readers.

    f(s·x) = s·f(x) for s > 0     ReLU, LeakyReLU, PReLU, pooling, resize: the channel behind is the channel before
    y = a + b, max(a, b)          one scale for a, b and y: the two are tied
    y = concat(a, b), x[:, 2:7]   each channel keeps its own scale
    y = a · b                     a's scale where b is fixed (a gate behind a sigmoid)
    y = ReLU6(x), x² , the result x keeps the scale it has: the layer's answer to another is another function

Like graph/channel_flow.py, which follows channels that can only *leave* together; there a depthwise layer ties its
inputs to its outputs, here it reads some channels and makes others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from slimseg.graph import edit, ops
from slimseg.graph.graph import Graph
from slimseg.quantisation.weight_layout import MIXING

Channels = tuple[int, ...]  # of each channel of a value, the number of the scale that it shares with others
_HOMOGENEOUS = (nn.ReLU, nn.LeakyReLU, nn.PReLU, ops.SpatialPReLU, ops.Resize, *ops.POOLINGS)
_LIKE_A_SUM = (ops.Add, ops.Subtract, ops.Maximum, ops.Minimum)


@dataclass(frozen=True)
class ScaleFlow:
    """By name of a node: the scales of its channels, as indices (channels,) of 0 to `count` - 1.

    `values`: of every value with channels in dimension 1; `made` and `read`: outputs and inputs of the layers that mix
    channels. `fixed`: scales that have to stay 1, and why.
    """

    count: int
    values: Mapping[str, Tensor]
    made: Mapping[str, Tensor]
    read: Mapping[str, Tensor]
    fixed: Mapping[int, str]


def scale_flow(graph: Graph) -> ScaleFlow:
    """Follow all channels through a network without batch norms (`fold_scales`)."""
    return _Tracer(graph).run()


class _Tracer:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.tied: list[int] = []  # by channel, one that it is tied to; union-find
        self.fixed: dict[int, str] = {}
        self.values: dict[fx.Node, Channels] = {}
        self.made: dict[str, Channels] = {}
        self.read: dict[str, Channels] = {}

    def run(self) -> ScaleFlow:
        for node in self.graph.module.graph.nodes:
            self.values[node] = self._value(node)
        roots = sorted({self._root(channel) for channel in range(len(self.tied))})
        number = {root: index for index, root in enumerate(roots)}

        def scales(channels: Channels) -> Tensor:
            return torch.tensor([number[self._root(channel)] for channel in channels], dtype=torch.long)

        fixed: dict[int, str] = {}
        for channel, reason in self.fixed.items():
            fixed.setdefault(number[self._root(channel)], reason)
        values = {node.name: scales(channels) for node, channels in self.values.items() if node.op != "output"}
        made, read = ({name: scales(value) for name, value in each.items()} for each in (self.made, self.read))
        return ScaleFlow(len(roots), values, made, read, fixed)

    def _value(self, node: fx.Node) -> Channels:
        layer = self.graph.layer(node)
        rule = next((rule for kinds, rule in _RULES if isinstance(layer, kinds)), None)
        found = rule(self, node, layer) if rule is not None else None
        if found is not None:
            return found
        for source in node.all_input_nodes:
            self._fix(self.values[source], f"{_reader(node, layer)} is not the same function of scaled values")
        return self._fix(self._new(node), f"{_reader(node, layer)} makes them")

    def mixed(self, node: fx.Node, layer: nn.Module) -> Channels | None:
        source = self._source(node)
        if isinstance(layer, nn.Linear) and len(self.graph.shape(node)) != 2:
            return None  # its channels are not in dimension 1
        self.read[node.name], self.made[node.name] = source, self._new(node)
        shared = edit.shared_with(self.graph, node)
        if shared is not None:
            self._fix((*source, *self.made[node.name]), f"{node.name} shares its weights with {shared}")
        return self.made[node.name]

    def free(self, node: fx.Node, layer: nn.Module) -> Channels:
        return self._source(node)

    def sum(self, node: fx.Node, layer: nn.Module) -> Channels | None:
        """Both sides get one scale; where one channel stands against many, all of them do."""
        sources = [source for source in node.args if isinstance(source, fx.Node)]
        if len(sources) != 2 or len({len(self.graph.shape(source)) for source in (*sources, node)}) != 1:
            return None
        shorter, longer = sorted((self.values[source] for source in sources), key=len)
        if len(shorter) not in (1, len(longer)):
            return None
        self._tie(shorter if len(shorter) == len(longer) else shorter * len(longer), longer)
        return longer

    def product(self, node: fx.Node, layer: nn.Module) -> Channels | None:
        sources = [self.values[source] for source in node.args if isinstance(source, fx.Node)]
        if len(sources) != 2 or len(self.graph.shape(node)) < 2:
            return None
        fixed = {self._root(channel) for channel in self.fixed}
        for value, factor in (sources, sources[::-1]):
            if len(value) == self.graph.shape(node)[1] and fixed.issuperset(map(self._root, factor)):
                return value
        return None

    def concat(self, node: fx.Node, layer: ops.Concat) -> Channels | None:
        values = [self.values[source] for source in node.args if isinstance(source, fx.Node)]
        dim = layer.dim % len(self.graph.shape(node))
        if dim == 0:
            return None
        if dim == 1:
            return sum(values, ())
        for other in values[1:]:
            self._tie(values[0], other)
        return values[0]

    def pad(self, node: fx.Node, layer: ops.Pad) -> Channels | None:
        """Zeros are zeros at every scale."""
        if layer.value != 0:
            return None
        first, last = layer.channels
        source = self._source(node)
        kept = source[max(-first, 0) : len(source) + min(last, 0)]
        return (*self._numbers(max(first, 0)), *kept, *self._numbers(max(last, 0)))

    def part(self, node: fx.Node, layer: ops.Slice) -> Channels | None:
        dim = layer.dim % len(self.graph.shape(node))
        if dim == 0:
            return None
        return self._source(node)[layer.start : layer.stop : layer.step] if dim == 1 else self._source(node)

    def reduce(self, node: fx.Node, layer: ops.Reduce) -> Channels | None:
        before = self.graph.shape(node.all_input_nodes[0])
        return None if {dim % len(before) for dim in layer.dims} & {0, 1} else self._source(node)

    def reshape(self, node: fx.Node, layer: ops.Reshape) -> Channels | None:
        """(1, C, 1, 1) to (1, C) and back, which a squeeze-and-excitation gate of linear layers has."""
        before, after = (self.graph.shape(each) for each in (node.all_input_nodes[0], node))
        flat = min(len(before), len(after)) >= 2 and before[1] == after[1] == math.prod(before)
        return self._source(node) if flat else None

    def depth_to_space(self, node: fx.Node, layer: ops.DepthToSpace) -> Channels:
        source, count = self._source(node), self.graph.shape(node)[1]
        for start in range(count, len(source), count):
            self._tie(source[:count], source[start : start + count])
        return source[:count]

    def space_to_depth(self, node: fx.Node, layer: ops.SpaceToDepth) -> Channels:
        return self._source(node) * layer.block**2

    def _source(self, node: fx.Node) -> Channels:
        return self.values[node.all_input_nodes[0]]

    def _new(self, node: fx.Node) -> Channels:
        shape = node.meta.get("shape", ())
        return self._numbers(shape[1] if len(shape) > 1 else 0)

    def _numbers(self, count: int) -> Channels:
        start = len(self.tied)
        self.tied.extend(range(start, start + count))
        return tuple(range(start, start + count))

    def _fix(self, channels: Channels, reason: str) -> Channels:
        for channel in channels:
            self.fixed.setdefault(channel, reason)
        return channels

    def _tie(self, first: Channels, second: Channels) -> None:
        for one, other in zip(first, second, strict=True):
            self.tied[self._root(other)] = self._root(one)

    def _root(self, channel: int) -> int:
        while self.tied[channel] != channel:
            self.tied[channel] = self.tied[self.tied[channel]]
            channel = self.tied[channel]
        return channel


def _reader(node: fx.Node, layer: nn.Module | None) -> str:
    """A node in words."""
    kinds = {"placeholder": "the input", "output": "the result", "get_attr": f"the constant {node.name}"}
    return f"{node.name} ({type(layer).__name__})" if layer is not None else kinds.get(node.op, node.name)


_RULES: tuple[tuple[Any, Callable[[_Tracer, fx.Node, Any], Channels | None]], ...] = (
    (MIXING, _Tracer.mixed),
    (_HOMOGENEOUS, _Tracer.free),
    (_LIKE_A_SUM, _Tracer.sum),
    (ops.Multiply, _Tracer.product),
    (ops.Concat, _Tracer.concat),
    (ops.Pad, _Tracer.pad),
    (ops.Slice, _Tracer.part),
    (ops.Reduce, _Tracer.reduce),
    (ops.Reshape, _Tracer.reshape),
    (ops.DepthToSpace, _Tracer.depth_to_space),
    (ops.SpaceToDepth, _Tracer.space_to_depth),
)
