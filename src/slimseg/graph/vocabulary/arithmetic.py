"""Elementwise arithmetic on one tensor, on one with constants, and on two."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
import torch_pruning
from torch import Tensor, fx, nn

from slimseg.graph.channel_trace import Channels, ChannelTrace
from slimseg.graph.shapes import Shape
from slimseg.graph.vocabulary.operator import Operator
from slimseg.graph.vocabulary.rules import (
    broadcast_shape,
    constant_channels,
    constants,
    cut_constants,
    held_channels,
    require_channels,
    same_channels,
    same_shape,
)


class Add(nn.Module):
    """Elementwise sum of two tensors, with broadcasting."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a + b


class Subtract(nn.Module):
    """Elementwise difference of two tensors, with broadcasting."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a - b


class Multiply(nn.Module):
    """Elementwise product of two tensors, with broadcasting (a squeeze-and-excitation gate, for example)."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a * b


class Divide(nn.Module):
    """Elementwise quotient of two tensors, with broadcasting."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a / b


class Maximum(nn.Module):
    """Elementwise maximum of two tensors, with broadcasting."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.maximum(a, b)


class Minimum(nn.Module):
    """Elementwise minimum of two tensors, with broadcasting."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.minimum(a, b)


class Unary(nn.Module):
    """An elementwise function of one tensor, given by torch's name for it."""

    FUNCTIONS: ClassVar[dict[str, Callable[[Tensor], Tensor]]] = {
        "abs": torch.abs,
        "exp": torch.exp,
        "log": torch.log,
        "neg": torch.neg,
        "sqrt": torch.sqrt,
        "rsqrt": torch.rsqrt,
        "square": torch.square,
        "reciprocal": torch.reciprocal,
        "sin": torch.sin,
        "cos": torch.cos,
        "floor": torch.floor,
        "sign": torch.sign,
    }
    POWERS: ClassVar[dict[float, str]] = {2.0: "square", 0.5: "sqrt", -0.5: "rsqrt"}  # by exponent

    def __init__(self, function: str) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.FUNCTIONS[self.function](x)

    def extra_repr(self) -> str:
        return self.function


class Affine(nn.Module):
    """`x * scale + shift`; the constants broadcast to (C, H, W): (), (C, 1, 1), ...; one may be None."""

    scale: Tensor | None
    shift: Tensor | None

    def __init__(self, scale: Tensor | None = None, shift: Tensor | None = None) -> None:
        super().__init__()
        for name, value in (("scale", scale), ("shift", shift)):
            if isinstance(value, nn.Parameter):
                self.register_parameter(name, value)
            else:
                self.register_buffer(name, value)

    def forward(self, x: Tensor) -> Tensor:
        if self.scale is not None:
            x = x * self.scale
        return x if self.shift is None else x + self.shift


# Shapes


def _batch_norm_shape(layer: nn.BatchNorm2d, shapes: Sequence[Shape]) -> Shape:
    require_channels(shapes[0], layer.num_features)
    return shapes[0]


def _affine_shape(layer: Affine, shapes: Sequence[Shape]) -> Shape:
    return broadcast_shape(layer, [*shapes, *(tuple(value.shape) for value in constants(layer).values())])


# Channels


def _pair_channels(trace: ChannelTrace, node: fx.Node, layer: nn.Module) -> Channels | None:
    """Channel k of the output is channel k of both inputs, which are tied; an input of one channel broadcasts."""
    sources = [source for source in node.args if isinstance(source, fx.Node)]
    if len({len(trace.shape(source)) for source in sources}) != 1 or len(trace.shape(node)) < 2:
        return None
    first, *others = sorted(trace.sources(node), key=len, reverse=True)
    for other in others:
        if len(other) == len(first):
            trace.tie(first, other)
        else:
            trace.fix(other, f"{node.name} uses it for all of its channels")
    return first


def _sum_scales(trace: ChannelTrace, node: fx.Node, layer: nn.Module) -> Channels | None:
    """Both inputs have the same scale in each channel; if one has a single channel, all channels share one scale."""
    sources = [source for source in node.args if isinstance(source, fx.Node)]
    if len(sources) != 2 or len({len(trace.shape(source)) for source in (*sources, node)}) != 1:
        return None
    shorter, longer = sorted(trace.sources(node), key=len)
    if len(shorter) not in (1, len(longer)):
        return None
    trace.tie(shorter if len(shorter) == len(longer) else shorter * len(longer), longer)
    return longer


def _product_scales(trace: ChannelTrace, node: fx.Node, layer: nn.Module) -> Channels | None:
    """The scales of one factor, if those of the other are fixed; else None."""
    sources = trace.sources(node)
    if len(sources) != 2 or len(trace.shape(node)) < 2:
        return None
    fixed = set(map(trace.root, trace.fixed))
    for value, factor in (sources, sources[::-1]):
        if len(value) == trace.shape(node)[1] and fixed.issuperset(map(trace.root, factor)):
            return value
    return None


OPERATORS = (
    Operator(
        nn.BatchNorm2d,
        _batch_norm_shape,
        channels=held_channels,
        cut_outputs=torch_pruning.prune_batchnorm_out_channels,
    ),
    Operator(Unary, same_shape, channels=same_channels),
    Operator(Add, broadcast_shape, channels=_pair_channels, scales=_sum_scales),
    Operator(Subtract, broadcast_shape, channels=_pair_channels, scales=_sum_scales),
    Operator(Multiply, broadcast_shape, channels=_pair_channels, scales=_product_scales),
    Operator(Divide, broadcast_shape, channels=_pair_channels),
    Operator(Maximum, broadcast_shape, channels=_pair_channels, scales=_sum_scales),
    Operator(Minimum, broadcast_shape, channels=_pair_channels, scales=_sum_scales),
    Operator(Affine, _affine_shape, channels=constant_channels, cut_outputs=cut_constants),
)
