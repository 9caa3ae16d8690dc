"""The channels of all values in a network, as numbers: equal numbers are the same channel.

    a new channel                    a new number
    x = a + b                        channels k of a and of b turn out to be the same: a union-find ties their numbers
    y = concat(a, b)                 the numbers of a, then those of b

graph/channel_tracer.py walks the network, and the rules of the vocabulary (graph/vocabulary) fill the trace layer by
layer.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import fx

Channels = tuple[int, ...]  # the number of each channel of a value


class ChannelTrace:
    """What is known about the channels so far.

    `values`: the channels of each node's value. `made` and `read`: the output and input channels of the layers that mix
    channels, by name. `held`: the channels of the layers that keep weights for each channel alone (batch norm,
    depthwise, PReLU, ...), by name. `fixed`: channels that have to stay as they are, and why.
    """

    def __init__(self) -> None:
        self.values: dict[fx.Node, Channels] = {}
        self.made: dict[str, Channels] = {}
        self.read: dict[str, Channels] = {}
        self.held: dict[str, Channels] = {}
        self.fixed: dict[int, str] = {}
        self._tied: list[int] = []  # for each channel, one that it is tied to: its parent in the union-find

    def shape(self, node: fx.Node) -> tuple[int, ...]:
        """Shape of a node's value (NCHW)."""
        return node.meta["shape"]  # type: ignore[no-any-return]

    def source(self, node: fx.Node) -> Channels:
        """The channels of the first value that a node reads."""
        return self.values[node.all_input_nodes[0]]

    def sources(self, node: fx.Node) -> list[Channels]:
        """The channels of every value that a node reads; a value that it reads twice is listed twice."""
        return [self.values[source] for source in node.args if isinstance(source, fx.Node)]

    def count(self, node: fx.Node) -> int:
        """How many channels a node's value has."""
        shape = node.meta.get("shape", ())
        return shape[1] if len(shape) > 1 else 0

    def new(self, count: int) -> Channels:
        """`count` new channels, tied to no others."""
        start = len(self._tied)
        self._tied.extend(range(start, start + count))
        return tuple(range(start, start + count))

    def fix(self, channels: Channels, reason: str) -> Channels:
        """Note that channels have to stay as they are; returns them."""
        for channel in dict.fromkeys(channels):
            self.fixed.setdefault(channel, reason)
        return channels

    def tie(self, first: Channels, second: Channels) -> None:
        """Note that each channel of one value and its counterpart in the other are the same."""
        for one, other in zip(first, second, strict=True):
            self._tied[self.root(other)] = self.root(one)

    def root(self, channel: int) -> int:
        """The number that stands for all channels that are tied to this one."""
        while self._tied[channel] != channel:
            self._tied[channel] = self._tied[self._tied[channel]]
            channel = self._tied[channel]
        return channel

    def roots(self, channels: Mapping[str, Channels]) -> dict[str, Channels]:
        """`channels` with every channel replaced by its root."""
        return {name: tuple(map(self.root, value)) for name, value in channels.items()}

    def fixed_roots(self) -> dict[int, str]:
        """`fixed` by root; the first reason where there are several."""
        found: dict[int, str] = {}
        for channel, reason in self.fixed.items():
            found.setdefault(self.root(channel), reason)
        return found
