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

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from slimseg.graph import ops
from slimseg.graph.channel_tracer import Channels, ChannelTracer
from slimseg.graph.graph import Graph

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
    found = _Tracer(graph)
    values = found.roots({node.name: value for node, value in found.values.items() if node.op != "output"})
    number = {root: index for index, root in enumerate(sorted(set[int]().union(*values.values())))}

    def scales(channels: Mapping[str, Channels]) -> dict[str, Tensor]:
        return {
            name: torch.tensor([number[root] for root in value], dtype=torch.long) for name, value in channels.items()
        }

    made, read = (scales(found.roots(each)) for each in (found.made, found.read))
    fixed = {number[root]: reason for root, reason in found.fixed_roots().items()}
    return ScaleFlow(len(number), scales(values), made, read, fixed)


class _Tracer(ChannelTracer):
    def unknown(self, node: fx.Node, layer: nn.Module | None) -> Channels:
        for source in node.all_input_nodes:
            self.fix(self.values[source], f"{_reader(node, layer)} is not the same function of scaled values")
        return self.fix(self.new(self.count(node)), f"{_reader(node, layer)} makes them")

    def mixed(self, node: fx.Node, layer: nn.Module) -> Channels | None:
        if isinstance(layer, nn.Linear) and len(self.graph.shape(node)) != 2:
            return None  # its channels are not in dimension 1
        self.read[node.name], self.made[node.name] = self.source(node), self.new(self.count(node))
        return self.made[node.name]

    def sum(self, node: fx.Node, layer: nn.Module) -> Channels | None:
        """Both sides get one scale; where one channel stands against many, all of them do."""
        sources = [source for source in node.args if isinstance(source, fx.Node)]
        if len(sources) != 2 or len({len(self.graph.shape(source)) for source in (*sources, node)}) != 1:
            return None
        shorter, longer = sorted((self.values[source] for source in sources), key=len)
        if len(shorter) not in (1, len(longer)):
            return None
        self.tie(shorter if len(shorter) == len(longer) else shorter * len(longer), longer)
        return longer

    def product(self, node: fx.Node, layer: nn.Module) -> Channels | None:
        sources = [self.values[source] for source in node.args if isinstance(source, fx.Node)]
        if len(sources) != 2 or len(self.graph.shape(node)) < 2:
            return None
        fixed = set(map(self.root, self.fixed))
        for value, factor in (sources, sources[::-1]):
            if len(value) == self.graph.shape(node)[1] and fixed.issuperset(map(self.root, factor)):
                return value
        return None

    def pad(self, node: fx.Node, layer: ops.Pad) -> Channels | None:
        """Zeros are zeros at every scale."""
        if layer.value != 0:
            return None
        first, last = layer.channels
        source = self.source(node)
        kept = source[max(-first, 0) : len(source) + min(last, 0)]
        return (*self.new(max(first, 0)), *kept, *self.new(max(last, 0)))

    def part(self, node: fx.Node, layer: ops.Slice) -> Channels | None:
        if layer.dim == 0:
            return None
        source = self.source(node)
        return source[layer.start : layer.stop : layer.step] if layer.dim == 1 else source

    def depth_to_space(self, node: fx.Node, layer: ops.DepthToSpace) -> Channels:
        source, count = self.source(node), self.count(node)
        for start in range(count, len(source), count):
            self.tie(source[:count], source[start : start + count])
        return source[:count]

    def space_to_depth(self, node: fx.Node, layer: ops.SpaceToDepth) -> Channels:
        return self.source(node) * layer.block**2

    rules = (
        (ops.MIXING, mixed),
        (_HOMOGENEOUS, ChannelTracer.free),
        (_LIKE_A_SUM, sum),
        (ops.Multiply, product),
        (ops.Concat, ChannelTracer.concat),
        (ops.Pad, pad),
        (ops.Slice, part),
        (ops.Reduce, ChannelTracer.reduce),
        (ops.Reshape, ChannelTracer.reshape),
        (ops.DepthToSpace, depth_to_space),
        (ops.SpaceToDepth, space_to_depth),
    )


def _reader(node: fx.Node, layer: nn.Module | None) -> str:
    """A node in words."""
    kinds = {"placeholder": "the input", "output": "the result", "get_attr": f"the constant {node.name}"}
    return f"{node.name} ({type(layer).__name__})" if layer is not None else kinds.get(node.op, node.name)
