"""The record of an operator: the rules that a class needs before a Graph can call it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import fx, nn

from slimseg.graph.channel_trace import Channels, ChannelTrace
from slimseg.graph.shapes import Shape

ShapeRule = Callable[[Any, Sequence[Shape]], Shape]
"""(layer, shapes of its inputs) to the shape of its output; raises ValueError if the inputs do not fit the layer."""

MacsRule = Callable[[Any, Sequence[Shape], Shape], int]
"""(layer, shapes of its inputs, shape of its output) to multiply-accumulates."""

ChannelRule = Callable[[ChannelTrace, fx.Node, Any], "Channels | None"]
"""(trace, node, layer) to the channels of the node's value; None if the rule does not hold for this node."""

CutRule = Callable[[Any, list[int]], object]
"""(layer, positions of channels): removes these channels from the layer, in place."""


def no_macs(layer: nn.Module, inputs: Sequence[Shape], output: Shape) -> int:
    """The rule of all layers but convolutions and linear layers, whose arithmetic is not counted."""
    return 0


@dataclass(frozen=True)
class Operator:
    """One class of the vocabulary. Every rule but `shape` has a default that is safe for any layer.

    Args:
        kind: the module's class. The record also holds for subclasses without a record of their own.
        shape: shape of the output.
        macs: multiply-accumulates at batch 1; 0 by default.
        inner: how many values it makes and reads again before its result, such as attention's scores; 0 by default.
        channels: which output channels are the same as which input channels, so that they can only be removed together
            (`channel_flow`). None: all of them have to stay.
        scales: which output and input channels can only be scaled together (`scale_flow`). None: none may be scaled.
        cut_outputs, cut_inputs: remove output or input channels from the layer. Needed by layers whose rule `channels`
            fills the trace's `made`, `read` or `held`.
        never_negative: whether no output is below zero for any input.
    """

    kind: type[nn.Module]
    shape: ShapeRule
    macs: MacsRule = no_macs
    inner: MacsRule = no_macs
    channels: ChannelRule | None = None
    scales: ChannelRule | None = None
    cut_outputs: CutRule | None = None
    cut_inputs: CutRule | None = None
    never_negative: bool = False


def kinds(operators: Iterable[Operator]) -> tuple[type[nn.Module], ...]:
    """The classes of some records, for `isinstance`."""
    return tuple(operator.kind for operator in operators)
