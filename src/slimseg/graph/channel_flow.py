"""Which channels are the same channel: followed from the layer that makes them through all that keep them apart.

    y = act(norm(conv(x)))        channel k of y is channel k of the convolution
    y = a + b, a · b              channel k of y is that of a and of b: the two are tied from then on
    y = concat(a, b)              a's channels, then b's
    y = argmax(x), x[:, 2:7], ... the number or the order of x's channels has a meaning: they have to stay

This is the dependency graph of Fang et al., "DepGraph: Towards Any Structural Pruning", 2023, section 3.2, worked out
channel by channel for the vocabulary. Whatever is not known to keep channels apart holds them fast.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import fx, nn

from slimseg.graph import edit, ops
from slimseg.graph.graph import Graph

MIXING = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
_FREE: tuple[type[nn.Module], ...] = (*ops.PLAIN_ACTIVATIONS, *ops.POOLINGS, ops.Unary, ops.Resize, ops.Cast)
_PAIRS = (ops.Add, ops.Subtract, ops.Multiply, ops.Divide, ops.Maximum, ops.Minimum)

Channels = tuple[int, ...]  # the identity of each channel of a value


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
    return _Tracer(graph).run()


def depthwise(layer: nn.Module | None) -> bool:
    """Whether a convolution works on each channel alone."""
    if not isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
        return False
    return layer.groups == layer.in_channels == layer.out_channels > 1


class _Tracer:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.tied: list[int] = []  # by channel, one that it is tied to; union-find
        self.fixed: dict[int, str] = {}
        self.values: dict[fx.Node, Channels] = {}
        self.made: dict[str, Channels] = {}
        self.read: dict[str, Channels] = {}
        self.held: dict[str, Channels] = {}

    def run(self) -> Flow:
        for node in self.graph.module.graph.nodes:
            self.values[node] = self._value(node)
            if node.name in self.made or node.name in self.held:
                self._keep_shared(node)
        made, read, held = (
            {name: self._resolved(value) for name, value in each.items()} for each in (self.made, self.read, self.held)
        )
        fixed: dict[int, str] = {}
        for channel, reason in self.fixed.items():
            fixed.setdefault(self._find(channel), reason)
        return Flow(made, read, held, fixed)

    def _keep_shared(self, node: fx.Node) -> None:
        other = edit.shared_with(self.graph, node)
        if other is not None:
            for channels in (self.values[node], self.read.get(node.name, ())):
                self._fix(channels, f"{node.name} shares its weights with {other}")

    def _value(self, node: fx.Node) -> Channels:
        layer = self.graph.layer(node)
        rule = next((rule for kinds, rule in _RULES if isinstance(layer, kinds)), None)
        found = rule(self, node, layer) if rule is not None else None
        if found is not None:
            return found
        for source in node.all_input_nodes:
            reason = f"its channels go on to {node.name}, {_kind(node, layer)}, which they would change"
            self._fix(self.values[source], reason)
        # Channels that all stay need not be told apart: a flattened mask has one for each pixel.
        stays = self._fix(self._numbers(1), f"its channels are tied to those of {node.name}, {_kind(node, layer)}")
        return stays * self._channels(node)

    def mixed(self, node: fx.Node, layer: Any) -> Channels | None:
        """A layer whose every output channel depends on every input channel."""
        source = self._source(node)
        if depthwise(layer):
            return self.kept(node, layer)
        if getattr(layer, "groups", 1) > 1 or (isinstance(layer, nn.Linear) and len(self.graph.shape(node)) != 2):
            return None
        self.read[node.name] = source
        self.made[node.name] = self._numbers(self._channels(node))
        return self.made[node.name]

    def kept(self, node: fx.Node, layer: nn.Module) -> Channels:
        """A layer with values of its own for each channel."""
        self.held[node.name] = self._source(node)
        return self._source(node)

    def free(self, node: fx.Node, layer: nn.Module) -> Channels:
        return self._source(node)

    def prelu(self, node: fx.Node, layer: nn.PReLU) -> Channels:
        return self.kept(node, layer) if layer.num_parameters > 1 else self._source(node)

    def constant(self, node: fx.Node, layer: ops.Affine | ops.SpatialPReLU) -> Channels | None:
        """Constants that broadcast to (C, H, W)."""
        sizes = [value.numel() for value in constants(layer).values()]
        before, after = (self.graph.shape(each) for each in (node.all_input_nodes[0], node))
        if all(size == 1 for size in sizes) and before == after:
            return self._source(node)
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
                self._tie(first, other)
            else:
                self._fix(other, f"{node.name} uses it for all of its channels")
        return first

    def concat(self, node: fx.Node, layer: ops.Concat) -> Channels | None:
        values = [self.values[source] for source in node.args if isinstance(source, fx.Node)]
        dim = layer.dim % len(self.graph.shape(node))
        if dim == 1:
            return sum(values, ())
        if dim == 0:
            return None
        for other in values[1:]:
            self._tie(values[0], other)
        return values[0]

    def pad(self, node: fx.Node, layer: ops.Pad) -> Channels | None:
        first, last = layer.channels
        if min(first, last) < 0:
            return None
        added = self._fix(self._numbers(first + last), f"its channels are tied to those that {node.name} adds")
        return (*added[:first], *self._source(node), *added[first:])

    def part(self, node: fx.Node, layer: ops.Slice) -> Channels | None:
        return self._source(node) if layer.dim % len(self.graph.shape(node)) > 1 else None

    def reduce(self, node: fx.Node, layer: ops.Reduce) -> Channels | None:
        before = self.graph.shape(node.all_input_nodes[0])
        return None if {dim % len(before) for dim in layer.dims} & {0, 1} else self._source(node)

    def reshape(self, node: fx.Node, layer: ops.Reshape) -> Channels | None:
        """(1, C, 1, 1) to (1, C) and back, which a squeeze-and-excitation gate of linear layers has."""
        before, after = (self.graph.shape(each) for each in (node.all_input_nodes[0], node))
        if min(len(before), len(after)) < 2 or not before[1] == after[1] == math.prod(before):
            return None
        return self.kept(node, layer)

    def _source(self, node: fx.Node) -> Channels:
        return self.values[node.all_input_nodes[0]]

    def _channels(self, node: fx.Node) -> int:
        shape = node.meta.get("shape", ())
        return shape[1] if len(shape) > 1 else 0

    def _numbers(self, count: int) -> Channels:
        start = len(self.tied)
        self.tied.extend(range(start, start + count))
        return tuple(range(start, start + count))

    def _fix(self, channels: Channels, reason: str) -> Channels:
        for channel in dict.fromkeys(channels):
            self.fixed.setdefault(channel, reason)
        return channels

    def _tie(self, first: Channels, second: Channels) -> None:
        for one, other in zip(first, second, strict=True):
            self.tied[self._find(other)] = self._find(one)

    def _find(self, channel: int) -> int:
        while self.tied[channel] != channel:
            self.tied[channel] = self.tied[self.tied[channel]]
            channel = self.tied[channel]
        return channel

    def _resolved(self, channels: Channels) -> Channels:
        return tuple(self._find(channel) for channel in channels)


def _kind(node: fx.Node, layer: nn.Module | None) -> str:
    kinds = {"placeholder": "the input", "output": "the result", "get_attr": "a constant"}
    return type(layer).__name__ if layer is not None else kinds.get(node.op, "an operation that is not known")


def constants(layer: nn.Module) -> dict[str, Any]:
    """What broadcasts to (C, H, W) in an Affine or SpatialPReLU, by its name there."""
    values = {name: getattr(layer, name, None) for name in ("scale", "shift", "weight")}
    return {name: value for name, value in values.items() if value is not None}


_RULES: tuple[tuple[Any, Callable[[_Tracer, fx.Node, Any], Channels | None]], ...] = (
    (MIXING, _Tracer.mixed),
    (nn.BatchNorm2d, _Tracer.kept),
    (nn.PReLU, _Tracer.prelu),
    ((ops.Affine, ops.SpatialPReLU), _Tracer.constant),
    (_FREE, _Tracer.free),
    (_PAIRS, _Tracer.pair),
    (ops.Concat, _Tracer.concat),
    (ops.Pad, _Tracer.pad),
    (ops.Slice, _Tracer.part),
    (ops.Reduce, _Tracer.reduce),
    (ops.Reshape, _Tracer.reshape),
)
