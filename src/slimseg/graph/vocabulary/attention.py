"""Scaled dot-product attention with several heads, on maps and on sequences of tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, fx, nn

from slimseg.graph.channel_trace import Channels, ChannelTrace
from slimseg.graph.shapes import Shape
from slimseg.graph.vocabulary.operator import Operator


class Attention(nn.Module):
    """softmax(scale · Q Kᵀ + bias) V for each head (Vaswani et al., "Attention Is All You Need", 2017, eq. 1).

    Reads queries (N, C, H, W), keys (N, C, h, w) and values (N, D, h, w); the result is (N, D, H, W). Every pixel is a
    token, and the weights of the values are a softmax over all pixels of the keys. The heads are groups of C / heads
    and D / heads neighbouring channels. Each input may also be a sequence (N, tokens, channels); the result has the
    arrangement of the queries. Windows that do not see each other are the images of a batch, so N is their number.

    Args:
        heads: how many groups of channels have scores of their own.
        scale: of the scores, mostly 1 / √(C / heads).
        bias: added to the scores: (heads or 1, queries, keys).
        mask: added to the scores of each window: (N, heads or 1, queries, keys).
    """

    bias: Tensor | None
    mask: Tensor | None

    def __init__(self, heads: int, scale: float, bias: Tensor | None = None, mask: Tensor | None = None) -> None:
        super().__init__()
        self.heads = heads
        self.scale = scale
        for name, value in (("bias", bias), ("mask", mask)):
            if isinstance(value, nn.Parameter):
                self.register_parameter(name, value)
            else:
                self.register_buffer(name, value)

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        q, k, v = (self._heads(each) for each in (queries, keys, values))
        scores = torch.matmul(q, k.mT) * self.scale
        if self.bias is not None:
            scores = scores + self.bias
        if self.mask is not None:
            windows = scores.reshape(-1, len(self.mask), *scores.shape[1:])  # of every image: training feeds several
            scores = (windows + self.mask).flatten(0, 1)
        result = torch.matmul(scores.softmax(-1), v).transpose(1, 2).flatten(2)
        return result if queries.ndim == 3 else result.mT.reshape(len(queries), -1, *queries.shape[2:])

    def _heads(self, x: Tensor) -> Tensor:
        """(N, heads, tokens, channels of a head)."""
        tokens = x.flatten(2).mT if x.ndim == 4 else x
        return tokens.reshape(*tokens.shape[:2], self.heads, -1).transpose(1, 2)

    def extra_repr(self) -> str:
        shapes = {name: value for name, value in (("bias", self.bias), ("mask", self.mask)) if value is not None}
        constants = "".join(f", {name}={tuple(value.shape)}" for name, value in shapes.items())
        return f"heads={self.heads}, scale={self.scale:.6g}{constants}"


def as_sequence(shape: Shape) -> Shape:
    """(N, tokens, channels) of a map or a sequence."""
    return (shape[0], math.prod(shape[2:]), shape[1]) if len(shape) == 4 else shape


def _shape(layer: Attention, shapes: Sequence[Shape]) -> Shape:
    if any(len(shape) not in (3, 4) for shape in shapes):
        raise ValueError(f"it needs maps or sequences, not {' and '.join(map(str, shapes))}")
    (images, queries, width), keys, values = map(as_sequence, shapes)
    if keys != (images, keys[1], width) or values[:2] != keys[:2]:
        raise ValueError(f"{' and '.join(map(str, shapes))} do not fit together")
    if width % layer.heads or values[2] % layer.heads:
        raise ValueError(f"{layer.heads} heads do not divide {width} and {values[2]} channels")
    scores = (queries, keys[1])
    if layer.bias is not None and tuple(layer.bias.shape) not in ((1, *scores), (layer.heads, *scores)):
        raise ValueError(f"a bias of {tuple(layer.bias.shape)} does not fit scores of {scores}")
    own_mask = None if layer.mask is None else tuple(layer.mask.shape)
    if own_mask not in (None, (images, 1, *scores), (images, layer.heads, *scores)):
        raise ValueError(f"a mask of {own_mask} does not fit {images} images with scores of {scores}")
    own = shapes[0]
    return (images, values[2], *own[2:]) if len(own) == 4 else (images, queries, values[2])


def _macs(layer: Attention, inputs: Sequence[Shape], output: Shape) -> int:
    images, queries, width = as_sequence(inputs[0])
    _, keys, depth = as_sequence(inputs[2])
    return images * queries * keys * (width + depth)


def _scores(layer: Attention, inputs: Sequence[Shape], output: Shape) -> int:
    """The number of scores, which softmax reads and writes."""
    (images, queries, _), (_, keys, _) = map(as_sequence, inputs[:2])
    return images * layer.heads * queries * keys


def _channels(trace: ChannelTrace, node: fx.Node, layer: Attention) -> Channels | None:
    """Channel k of the queries goes with channel k of the keys, and channel k of the result is that of the values.

    A head can become narrower, but only if all of them do, so the channels at the same place of every head are tied.
    """
    if any(len(trace.shape(source)) != 4 for source in node.all_input_nodes):
        return None
    queries, keys, values = trace.sources(node)
    trace.tie(queries, keys)
    for channels in (queries, values):
        size = len(channels) // layer.heads
        for start in range(size, len(channels), size):
            trace.tie(channels[:size], channels[start : start + size])
    return values


def _scales(trace: ChannelTrace, node: fx.Node, layer: Attention) -> Channels | None:
    """The result is a mean of values, and has their scales; queries and keys stay as they are."""
    if any(len(trace.shape(source)) != 4 for source in node.all_input_nodes):
        return None
    queries, keys, values = trace.sources(node)
    trace.fix((*queries, *keys), f"{node.name} compares these channels")
    return values


OPERATORS = (Operator(Attention, _shape, _macs, _scores, _channels, _scales),)
