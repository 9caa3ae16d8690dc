"""Follows the channels of every value through a network, from the layer that makes them to their readers.

    every channel                    a number
    x = a + b, say                   two that turn out to be one are tied: a union-find
    y = concat(a, b)                 the numbers of a, then those of b
    what has no rule, or not here    its channels are fixed, as are those of the values that it reads, for a reason

What follows from being one channel is up to the rules: graph/channel_flow.py asks which can only leave together,
quantisation/scale_flow.py which can only be scaled together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from torch import fx, nn

from slimseg.graph import edit, ops
from slimseg.graph.graph import Graph

Channels = tuple[int, ...]  # the number of each channel of a value
Rule = tuple[Any, Callable[[Any, fx.Node, Any], "Channels | None"]]  # classes of layers, and a method of the tracer


class ChannelTracer:
    """`made` and `read`: output and input channels by layer; `fixed`: channels that have to stay as they are, and why.

    A rule gives the channels of a layer's output, (channels,), or None where it does not hold.
    """

    rules: ClassVar[Sequence[Rule]]

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.values: dict[fx.Node, Channels] = {}
        self.made: dict[str, Channels] = {}
        self.read: dict[str, Channels] = {}
        self.fixed: dict[int, str] = {}
        self._tied: list[int] = []  # by channel, one that it is tied to
        for node in graph.module.graph.nodes:
            self.values[node] = self._value(node)
            self._keep_shared(node)

    def _value(self, node: fx.Node) -> Channels:
        layer = self.graph.layer(node)
        rule = next((rule for kinds, rule in self.rules if isinstance(layer, kinds)), None)
        found = rule(self, node, layer) if rule is not None else None
        return self.unknown(node, layer) if found is None else found

    def _keep_shared(self, node: fx.Node) -> None:
        """Weights that are another layer's, too, would change for both."""
        other = edit.shared_with(self.graph, node) if self.has_weights(node) else None
        if other is not None:
            self.fix(
                (*self.read.get(node.name, ()), *self.values[node]), f"{node.name} shares its weights with {other}"
            )

    def has_weights(self, node: fx.Node) -> bool:
        """Whether a layer has weights of its own for its channels."""
        return node.name in self.made

    def unknown(self, node: fx.Node, layer: nn.Module | None) -> Channels:
        """The channels of what no rule knows, after `fix` of all that it reads."""
        raise NotImplementedError

    # Rules that both have

    def free(self, node: fx.Node, layer: nn.Module) -> Channels:
        return self.source(node)

    def concat(self, node: fx.Node, layer: ops.Concat) -> Channels | None:
        values = [self.values[source] for source in node.args if isinstance(source, fx.Node)]
        if layer.dim == 0:
            return None
        if layer.dim == 1:
            return sum(values, ())
        for other in values[1:]:
            self.tie(values[0], other)
        return values[0]

    def reduce(self, node: fx.Node, layer: ops.Reduce) -> Channels | None:
        return None if {0, 1} & set(layer.dims) else self.source(node)

    def reshape(self, node: fx.Node, layer: ops.Reshape) -> Channels | None:
        """(1, C, 1, 1) to (1, C) and back, which a squeeze-and-excitation gate of linear layers has."""
        before, after = (self.graph.shape(each) for each in (node.all_input_nodes[0], node))
        flat = min(len(before), len(after)) >= 2 and before[1] == after[1] == math.prod(before)
        return self.source(node) if flat else None

    # Channels

    def source(self, node: fx.Node) -> Channels:
        return self.values[node.all_input_nodes[0]]

    def count(self, node: fx.Node) -> int:
        """Of the channels of a node's value."""
        shape = node.meta.get("shape", ())
        return shape[1] if len(shape) > 1 else 0

    def new(self, count: int) -> Channels:
        start = len(self._tied)
        self._tied.extend(range(start, start + count))
        return tuple(range(start, start + count))

    def fix(self, channels: Channels, reason: str) -> Channels:
        for channel in dict.fromkeys(channels):
            self.fixed.setdefault(channel, reason)
        return channels

    def tie(self, first: Channels, second: Channels) -> None:
        for one, other in zip(first, second, strict=True):
            self._tied[self.root(other)] = self.root(one)

    def root(self, channel: int) -> int:
        """The one number of all channels that are tied to this."""
        while self._tied[channel] != channel:
            self._tied[channel] = self._tied[self._tied[channel]]
            channel = self._tied[channel]
        return channel

    def roots(self, channels: Mapping[str, Channels]) -> dict[str, Channels]:
        return {name: tuple(map(self.root, value)) for name, value in channels.items()}

    def fixed_roots(self) -> dict[int, str]:
        """`fixed` by root; of several reasons the first."""
        found: dict[int, str] = {}
        for channel, reason in self.fixed.items():
            found.setdefault(self.root(channel), reason)
        return found
