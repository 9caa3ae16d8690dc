"""Which channels are the same channel: followed from the layer that makes them through all that keep them apart.

    y = act(norm(conv(x)))        channel k of y is channel k of the convolution
    y = a + b, a · b              channel k of y is that of a and of b: the two are tied from then on
    y = concat(a, b)              a's channels, then b's
    y = argmax(x), x[:, 2:7], ... the number or the order of x's channels has a meaning: they have to stay

This is the dependency graph of Fang et al., "DepGraph: Towards Any Structural Pruning", 2023, section 3.2, worked out
channel by channel for the vocabulary. Whatever is not known to keep channels apart holds them fast.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import fx, nn

from slimseg.graph import ops
from slimseg.graph.channel_tracer import Channels, ChannelTracer
from slimseg.graph.graph import Graph

_FREE: tuple[type[nn.Module], ...] = (*ops.PLAIN_ACTIVATIONS, *ops.POOLINGS, ops.Unary, ops.Resize, ops.Cast)
_PAIRS = (ops.Add, ops.Subtract, ops.Multiply, ops.Divide, ops.Maximum, ops.Minimum)


@dataclass(frozen=True)
class Flow:
    """The identity of every channel, by layer; equal numbers are one channel.

    `made`: output channels of the layers that mix channels, in execution order; `read`: their input channels.
    `held`: channels of the layers that have something of their own for each (batch norm, depthwise, PReLU, ...).
    `fixed`: channels that cannot leave, and why.
    """

    made: Mapping[str, Channels]
    read: Mapping[str, Channels]
    held: Mapping[str, Channels]
    fixed: Mapping[int, str]


def flow(graph: Graph) -> Flow:
    """Follow all channels through a network."""
    found = _Tracer(graph)
    return Flow(found.roots(found.made), found.roots(found.read), found.roots(found.held), found.fixed_roots())


def depthwise(layer: nn.Module | None) -> bool:
    """Whether a convolution works on each channel alone."""
    if not isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
        return False
    return layer.groups == layer.in_channels == layer.out_channels > 1


class _Tracer(ChannelTracer):
    def __init__(self, graph: Graph) -> None:
        self.held: dict[str, Channels] = {}
        super().__init__(graph)

    def has_weights(self, node: fx.Node) -> bool:
        return node.name in self.made or node.name in self.held

    def unknown(self, node: fx.Node, layer: nn.Module | None) -> Channels:
        for source in node.all_input_nodes:
            reason = f"its channels go on to {node.name}, {_kind(node, layer)}, which they would change"
            self.fix(self.values[source], reason)
        # Channels that all stay need not be told apart: a flattened mask has one for each pixel.
        stays = self.fix(self.new(1), f"its channels are tied to those of {node.name}, {_kind(node, layer)}")
        return stays * self.count(node)

    def mixed(self, node: fx.Node, layer: Any) -> Channels | None:
        """A layer whose every output channel depends on every input channel."""
        if depthwise(layer):
            return self.kept(node, layer)
        if getattr(layer, "groups", 1) > 1 or (isinstance(layer, nn.Linear) and len(self.graph.shape(node)) != 2):
            return None
        self.read[node.name], self.made[node.name] = self.source(node), self.new(self.count(node))
        return self.made[node.name]

    def kept(self, node: fx.Node, layer: nn.Module) -> Channels:
        """A layer with values of its own for each channel."""
        self.held[node.name] = self.source(node)
        return self.source(node)

    def prelu(self, node: fx.Node, layer: nn.PReLU) -> Channels:
        return self.kept(node, layer) if layer.num_parameters > 1 else self.source(node)

    def constant(self, node: fx.Node, layer: ops.Affine | ops.SpatialPReLU) -> Channels | None:
        """Constants that broadcast to (C, H, W)."""
        sizes = [value.numel() for value in constants(layer).values()]
        before, after = (self.graph.shape(each) for each in (node.all_input_nodes[0], node))
        if all(size == 1 for size in sizes) and before == after:
            return self.source(node)
        if len(after) != 4 or before[1] != after[1]:
            return None
        return self.kept(node, layer)

    def pair(self, node: fx.Node, layer: nn.Module) -> Channels | None:
        """An elementwise function of two values; one channel may stand against many."""
        sources = [source for source in node.args if isinstance(source, fx.Node)]
        if len({len(self.graph.shape(source)) for source in sources}) != 1 or len(self.graph.shape(node)) < 2:
            return None
        first, *others = sorted((self.values[source] for source in sources), key=len, reverse=True)
        for other in others:
            if len(other) == len(first):
                self.tie(first, other)
            else:
                self.fix(other, f"{node.name} uses it for all of its channels")
        return first

    def pad(self, node: fx.Node, layer: ops.Pad) -> Channels | None:
        first, last = layer.channels
        if min(first, last) < 0:
            return None
        added = self.fix(self.new(first + last), f"its channels are tied to those that {node.name} adds")
        return (*added[:first], *self.source(node), *added[first:])

    def part(self, node: fx.Node, layer: ops.Slice) -> Channels | None:
        return self.source(node) if layer.dim > 1 else None

    def flattened(self, node: fx.Node, layer: ops.Reshape) -> Channels | None:
        """It names the number of its channels."""
        return None if self.reshape(node, layer) is None else self.kept(node, layer)

    rules = (
        (ops.MIXING, mixed),
        (nn.BatchNorm2d, kept),
        (nn.PReLU, prelu),
        ((ops.Affine, ops.SpatialPReLU), constant),
        (_FREE, ChannelTracer.free),
        (_PAIRS, pair),
        (ops.Concat, ChannelTracer.concat),
        (ops.Pad, pad),
        (ops.Slice, part),
        (ops.Reduce, ChannelTracer.reduce),
        (ops.Reshape, flattened),
    )


def _kind(node: fx.Node, layer: nn.Module | None) -> str:
    kinds = {"placeholder": "the input", "output": "the result", "get_attr": "a constant"}
    return type(layer).__name__ if layer is not None else kinds.get(node.op, "an operation that is not known")


def constants(layer: nn.Module) -> dict[str, Any]:
    """What broadcasts to (C, H, W) in an Affine or SpatialPReLU, by its name there."""
    values = {name: getattr(layer, name, None) for name in ("scale", "shift", "weight")}
    return {name: value for name, value in values.items() if value is not None}
