"""Cross-layer equalisation: gives channels similar ranges before they share one 8-bit grid. Exact in float32.

    Given   x = f(W¹∗u + b¹),  y = W²∗x + b²,     f(s·x) = s·f(x) for s > 0
    Result  x' = f(S⁻¹(W¹∗u + b¹)),  y = (W²S)∗x' + b²,     S = diag(s), a scale per channel of x

Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", 2019, section 4.1: both sides
get equal ranges with sᵢ = √(r¹ᵢ / r²ᵢ) (eq. 9-11), where r²ᵢ is the range of the weights that read channel i, and r¹ᵢ

- with images, the range of its values: weights have a grid per output channel, so the weights that make a
  channel need no equalisation, but all channels of x share one grid;
- without images, the range of the weights that make it, as in the paper: here a guess at the values.

Ranges are relative to the grid that the values are rounded to: r¹ to the largest channel of its tensor, r² to the
largest weight of the same output channel. A depthwise layer has a separate grid for each input channel, so it accepts
any scale, and the channels before it get equal ranges. Unlike the paper, this is not limited to chains of layers:
channels that meet in a sum, are concatenated or have several readers are scaled together (scale_flow.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from slimseg.graph import ops
from slimseg.graph.features import Features
from slimseg.graph.fold import fold_scales
from slimseg.graph.graph import Graph, only_consumer
from slimseg.quantisation.scale_flow import ScaleFlow, scale_flow
from slimseg.quantisation.weight_layout import as_stored, by_channels

_ROUNDS_AT_MOST = 100
_CONVERGED = 0.01  # largest change of a scale's logarithm at convergence
_DEAD = 1e-6  # share of the largest range: channels with less are not scaled


@dataclass(frozen=True)
class Pair:
    """A layer and a reader of its channels, which were scaled; `spread` is the largest scale over the smallest."""

    producer: str
    reader: str
    channels: int
    spread: float


@dataclass(frozen=True)
class Kept:
    """A layer that keeps the scale of some of its channels, and the reason for the first of them."""

    producer: str
    channels: int
    reason: str


@dataclass(frozen=True)
class Equalised:
    """A graph of the same function with scaled weights and folded batch norms."""

    graph: Graph
    pairs: tuple[Pair, ...]
    kept: tuple[Kept, ...]


@torch.no_grad()
def equalised(graph: Graph, images: Tensor | None = None, bound: float = 8.0) -> Equalised:
    """The graph with equalised channel ranges; its outputs are equal within float error.

    Args:
        images: (N, C, H, W), preprocessed; a dozen are enough. None: ranges are guessed from the weights.
        bound: every scale is between 1/bound and bound, so that a channel that is nearly silent on these images is not
            raised so far that other images are clipped. 8 did best on most networks, 64 on one whose channels differ
            by a factor of 1000.
    """
    result = fold_scales(graph)
    flow = scale_flow(result)
    weights = {name: by_channels(_mixing(result, name)).abs().amax(3) for name in flow.made}
    values = {} if images is None else _largest_values(result, flow, images)
    scales = _Ranges(flow, weights, values).matched(bound)
    for name in flow.made:
        _scale(_mixing(result, name), scales[flow.read[name]], scales[flow.made[name]])
    return Equalised(result, tuple(_pairs(flow, scales)), tuple(_kept(flow)))


class _Ranges:
    """The ranges of both sides at given scales (count,), each (count,); 0 for a scale without that side.

    `weights`: by layer, the largest weight of each kernel (groups, outputs, inputs); `values`: by node, the largest
    value of each channel.
    """

    def __init__(self, flow: ScaleFlow, weights: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
        self.flow, self.weights, self.values = flow, weights, values

    def matched(self, bound: float) -> Tensor:
        """The scales at which both sides have equal ranges; 1 if a scale is fixed, silent or has only one side."""
        free = torch.ones(self.flow.count, dtype=torch.bool)
        free[list(self.flow.fixed)] = False
        scales = torch.ones(self.flow.count)
        for _ in range(_ROUNDS_AT_MOST):
            made, read = self.made(scales), self.read(scales)
            usable = free & (made > _DEAD) & (read > _DEAD)
            wanted = torch.where(usable, scales * (made / read).sqrt(), scales).clamp(1 / bound, bound)
            change = (wanted / scales).log().abs().amax() if len(scales) else torch.tensor(0.0)
            scales = wanted
            if change < _CONVERGED:
                break
        return scales

    def made(self, scales: Tensor) -> Tensor:
        """r¹: the range of each channel, relative to the widest in its tensor."""
        found = torch.zeros(self.flow.count)
        for name, indices in (self.flow.values if self.values else self.flow.made).items():
            largest = self.values.get(name) if self.values else self._incoming(name, scales).amax(2).flatten()
            if largest is not None:
                ranges = largest / scales[indices]
                _raise(found, indices, ranges / _positive(ranges.amax()))
        return found

    def read(self, scales: Tensor) -> Tensor:
        """r²: the range of the weights that read each channel, relative to the largest of the same output channel."""
        found = torch.zeros(self.flow.count)
        for name, indices in self.flow.read.items():
            weights = self._incoming(name, scales)
            relative = weights / _positive(weights.amax(2, keepdim=True))
            _raise(found, indices, relative.amax(1).flatten())
        return found

    def _incoming(self, name: str, scales: Tensor) -> Tensor:
        """A layer's weights for scaled inputs but unscaled outputs."""
        weights = self.weights[name]
        return weights * scales[self.flow.read[name]].reshape(weights.shape[0], 1, -1)


def _raise(found: Tensor, indices: Tensor, values: Tensor) -> None:
    found.scatter_reduce_(0, indices, values, "amax")


def _positive(values: Tensor) -> Tensor:
    return values.clamp(min=torch.finfo(values.dtype).tiny)


def _largest_values(graph: Graph, flow: ScaleFlow, images: Tensor) -> dict[str, Tensor]:
    """For each node with its own grid the largest magnitude in each channel, (channels,)."""
    names = [name for name, indices in flow.values.items() if len(indices) and _has_grid(graph, graph.node(name))]
    features, found = Features(graph.module, names), dict[str, Tensor]()
    for image in torch.split(images, 1):
        for name, value in features(image)[1].items():
            largest = value.abs().transpose(0, 1).flatten(1).amax(1)
            found[name] = torch.maximum(found[name], largest) if name in found else largest
    return found


def _has_grid(graph: Graph, node: fx.Node) -> bool:
    """Whether a node's value has its own 8-bit grid; not if a ReLU follows, which is fused into the operator."""
    reader = only_consumer(node)
    return reader is None or graph.layer_as(reader, nn.ReLU) is None


def _mixing(graph: Graph, name: str) -> ops.Mixing:
    layer = graph.layer(graph.node(name))
    assert isinstance(layer, ops.MIXING)
    return layer


def _scale(layer: ops.Mixing, inputs: Tensor, outputs: Tensor) -> None:
    """Change a layer's weights in place so that it maps x/inputs to y/outputs, where it mapped x to y."""
    weights = by_channels(layer)
    groups = weights.shape[0]
    scaled = weights * inputs.reshape(groups, 1, -1, 1) / outputs.reshape(groups, -1, 1, 1)
    layer.weight = nn.Parameter(as_stored(layer, scaled).contiguous())
    if layer.bias is not None:
        layer.bias = nn.Parameter(layer.bias.detach() / outputs)


def _pairs(flow: ScaleFlow, scales: Tensor) -> Iterator[Pair]:
    for producer, made in flow.made.items():
        for reader, read in flow.read.items():
            both = made[torch.isin(made, read)]
            moved = scales[both]
            if (moved != 1).any():
                yield Pair(producer, reader, len(both), float(moved.max() / moved.min()))


def _kept(flow: ScaleFlow) -> Iterator[Kept]:
    for producer, made in flow.made.items():
        reasons = [flow.fixed[index] for index in made.tolist() if index in flow.fixed]
        if reasons:
            yield Kept(producer, len(reasons), reasons[0])
