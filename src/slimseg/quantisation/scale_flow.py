"""Which channels may be scaled, and which only together: each is followed from the layer that makes it to its readers.

    f(s·x) = s·f(x) for s > 0     ReLU, LeakyReLU, PReLU, pooling, resize: input and output channel have one scale
    y = a + b, max(a, b)          a, b and y have one scale: a and b are tied
    y = concat(a, b), x[:, 2:7]   each channel keeps its own scale
    y = a · b                     y has a's scale if b is fixed (b a sigmoid gate)
    y = ReLU6(x), x² , the output x is fixed at scale 1: the layer is another function of scaled values

The rules are those of the vocabulary (`Operator.scales`). graph/channel_flow.py follows channels that can only be
*removed* together: there a depthwise layer ties its inputs to its outputs, here both have scales of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from slimseg.graph.channel_trace import Channels
from slimseg.graph.channel_tracer import ChannelTracer
from slimseg.graph.graph import Graph
from slimseg.graph.vocabulary import ChannelRule, Operator


@dataclass(frozen=True)
class ScaleFlow:
    """The scales of channels, by node name, as indices (channels,) of 0 to `count` - 1; equal indices are one scale.

    `values`: channels of every value, in dimension 1; `made` and `read`: output and input channels of the layers that
    mix channels. `fixed`: scales that have to stay 1, and why.
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
    def rule(self, operator: Operator) -> ChannelRule | None:
        return operator.scales

    def unknown(self, node: fx.Node, layer: nn.Module | None) -> Channels:
        for source in node.all_input_nodes:
            self.fix(self.values[source], f"{_reader(node, layer)} does not allow channels with different scales")
        return self.fix(self.new(self.count(node)), f"{_reader(node, layer)} fixes their scale")


def _reader(node: fx.Node, layer: nn.Module | None) -> str:
    """A node in words, for reasons."""
    kinds = {"placeholder": "the input", "output": "the result", "get_attr": f"the constant {node.name}"}
    return f"{node.name} ({type(layer).__name__})" if layer is not None else kinds.get(node.op, node.name)
