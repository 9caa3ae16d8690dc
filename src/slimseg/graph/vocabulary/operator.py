"""The record of an operator: what has to be known of a class before a Graph can call it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import fx, nn

from slimseg.graph.channel_trace import Channels, ChannelTrace
from slimseg.graph.shapes import Shape

ShapeRule = Callable[[Any, Sequence[Shape]], Shape]
"""(layer, shapes of its inputs) to the shape of its output; ValueError where they do not fit the layer."""

MacsRule = Callable[[Any, Sequence[Shape], Shape], int]
"""(layer, shapes of its inputs, shape of its output) to multiply-accumulates."""

ChannelRule = Callable[[ChannelTrace, fx.Node, Any], "Channels | None"]
"""(trace, node, layer) to the channels of the node's value; None where the rule does not hold."""

CutRule = Callable[[Any, list[int]], object]
"""(layer, positions of its channels that leave): takes them out of the layer, in place."""


def no_macs(layer: nn.Module, inputs: Sequence[Shape], output: Shape) -> int:
    """Of layers whose arithmetic is not counted, which is all but convolutions and linear layers."""
    return 0


@dataclass(frozen=True)
class Operator:
    """One class of the vocabulary. A rule that is left out has a default that is safe for any layer.

    Args:
        kind: the module's class. The record holds for subclasses that have none of their own, too.
        shape: of the output.
        macs: multiply-accumulates at batch 1; none by default.
        channels: which channels of its output are which of its inputs', and can only leave together with them
            (`channel_flow`). None: all of them have to stay.
        scales: the same for channels that can only be scaled together (`scale_flow`). None: none may be scaled.
        cut_outputs, cut_inputs: how output and input channels leave the layer, for those whose `channels` say that it
            makes or reads some, or has something of its own for each.
        never_negative: whether no output is below zero, whatever the input.
    """

    kind: type[nn.Module]
    shape: ShapeRule
    macs: MacsRule = no_macs
    channels: ChannelRule | None = None
    scales: ChannelRule | None = None
    cut_outputs: CutRule | None = None
    cut_inputs: CutRule | None = None
    never_negative: bool = False


def kinds(operators: Iterable[Operator]) -> tuple[type[nn.Module], ...]:
    """The classes of some records, for `isinstance`."""
    return tuple(operator.kind for operator in operators)
