"""Which channels are the same: each is followed from the layer that makes it through all layers that do not mix it.

    y = act(norm(conv(x)))        channel k of y is channel k of the convolution
    y = a + b, a · b              channel k of y is channel k of a and of b: the two count as one from then on
    y = concat(a, b)              a's channels, then b's
    y = argmax(x), x[:, 2:7], ... the number or the order of x's channels has a meaning: they have to stay

This is the dependency graph of Fang et al., "DepGraph: Towards Any Structural Pruning", 2023, section 3.2, worked out
channel by channel by the rules of the vocabulary (`Operator.channels`). Channels that reach a layer without such a
rule have to stay.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import fx, nn

from slimseg.graph.channel_trace import Channels
from slimseg.graph.channel_tracer import ChannelTracer
from slimseg.graph.graph import Graph
from slimseg.graph.vocabulary import ChannelRule, Operator


@dataclass(frozen=True)
class Flow:
    """A number for every channel of every layer; equal numbers are the same channel.

    `made`: output channels of the layers that mix channels, in execution order; `read`: their input channels.
    `held`: channels of the layers that keep weights for each channel alone (batch norm, depthwise, PReLU, ...).
    `fixed`: channels that cannot be removed, and why.
    """

    made: Mapping[str, Channels]
    read: Mapping[str, Channels]
    held: Mapping[str, Channels]
    fixed: Mapping[int, str]


def flow(graph: Graph) -> Flow:
    """Follow all channels through a network."""
    found = _Tracer(graph)
    return Flow(found.roots(found.made), found.roots(found.read), found.roots(found.held), found.fixed_roots())


class _Tracer(ChannelTracer):
    def rule(self, operator: Operator) -> ChannelRule | None:
        return operator.channels

    def unknown(self, node: fx.Node, layer: nn.Module | None) -> Channels:
        for source in node.all_input_nodes:
            reason = f"its channels are read by {node.name}, {_kind(node, layer)}, which would have to change"
            self.fix(self.values[source], reason)
        # One number is enough for channels that all stay: a flattened mask would have one for each pixel.
        stays = self.fix(self.new(1), f"its channels are tied to those of {node.name}, {_kind(node, layer)}")
        return stays * self.count(node)


def _kind(node: fx.Node, layer: nn.Module | None) -> str:
    kinds = {"placeholder": "the input", "output": "the result", "get_attr": "a constant"}
    return type(layer).__name__ if layer is not None else kinds.get(node.op, "an unknown operation")
