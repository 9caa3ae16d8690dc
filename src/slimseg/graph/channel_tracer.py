"""Follows the channels of every value through a network, from the layer that makes them to their readers.

A layer without a rule, or where its rule does not hold, has its channels fixed, and so have the values that it reads.
There are two kinds of rule in an operator's record (graph/vocabulary): `channels` gives the channels that can only be
removed together (graph/channel_flow.py), `scales` those that can only be scaled together (quantisation/scale_flow.py).
"""

from __future__ import annotations

from collections import Counter

from torch import fx, nn

from slimseg.graph import edit
from slimseg.graph.channel_trace import Channels, ChannelTrace
from slimseg.graph.graph import Graph
from slimseg.graph.vocabulary import ChannelRule, Operator, operator_of


class ChannelTracer(ChannelTrace):
    """The trace of a whole network."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph = graph
        self.calls = Counter(str(node.target) for node in graph.layers())  # of each module
        for node in graph.module.graph.nodes:
            self.values[node] = self._value(node)
            self._keep_shared(node)

    def rule(self, operator: Operator) -> ChannelRule | None:
        """The operator's rule of the kind that this tracer follows; None if it has none."""
        raise NotImplementedError

    def unknown(self, node: fx.Node, layer: nn.Module | None) -> Channels:
        """The channels of a node without a rule, after fixing the channels of all values that it reads."""
        raise NotImplementedError

    def _value(self, node: fx.Node) -> Channels:
        layer = self.graph.layer(node)
        operator = operator_of(layer)
        rule = self.rule(operator) if operator is not None else None
        found = rule(self, node, layer) if rule is not None else None
        return self.unknown(node, layer) if found is None else found

    def _keep_shared(self, node: fx.Node) -> None:
        """Fix the channels of a layer that shares its weights: a change would reach the other layer, too."""
        has_weights = node.name in self.made or node.name in self.held
        is_shared = has_weights and self.calls[str(node.target)] > 1
        other = edit.shared_with(self.graph, node) if is_shared else None
        if other is not None:
            self.fix(
                (*self.read.get(node.name, ()), *self.values[node]), f"{node.name} shares its weights with {other}"
            )
