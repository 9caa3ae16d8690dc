"""Reductions over dimensions, and the index of the largest channel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, fx, nn

from slimseg.graph.channel_trace import Channels, ChannelTrace
from slimseg.graph.shapes import Shape
from slimseg.graph.vocabulary.operator import Operator
from slimseg.graph.vocabulary.rules import from_the_front

Reduction = Literal["mean", "sum", "max", "min"]


class Reduce(nn.Module):
    """Mean, sum, maximum or minimum over some dimensions."""

    def __init__(self, kind: Reduction, dims: tuple[int, ...], keepdim: bool) -> None:
        super().__init__()
        self.kind = kind
        self.dims = tuple(map(from_the_front, dims))
        self.keepdim = keepdim

    def forward(self, x: Tensor) -> Tensor:
        function = {"mean": torch.mean, "sum": torch.sum, "max": torch.amax, "min": torch.amin}[self.kind]
        return function(x, self.dims, self.keepdim)  # type: ignore[operator, no-any-return]

    def extra_repr(self) -> str:
        return f"{self.kind}, dims={self.dims}, keepdim={self.keepdim}"


class ArgMax(nn.Module):
    """Index of the largest channel: (N, C, H, W) to (N, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.argmax(1)


def _reduce_shape(layer: Reduce, shapes: Sequence[Shape]) -> Shape:
    kept = enumerate(shapes[0])
    return tuple(1 if dim in layer.dims else length for dim, length in kept if layer.keepdim or dim not in layer.dims)


def _arg_max_shape(layer: ArgMax, shapes: Sequence[Shape]) -> Shape:
    return (shapes[0][0], *shapes[0][2:])


def _reduce_channels(trace: ChannelTrace, node: fx.Node, layer: Reduce) -> Channels | None:
    return None if {0, 1} & set(layer.dims) else trace.source(node)


OPERATORS = (
    Operator(Reduce, _reduce_shape, channels=_reduce_channels, scales=_reduce_channels),
    Operator(ArgMax, _arg_max_shape),
)
