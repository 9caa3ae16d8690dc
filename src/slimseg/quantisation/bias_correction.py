"""Bias correction: rounding the weights shifts the mean of a channel, and its bias is changed to undo the shift.

    Given   y = W∗x + b,   ỹ = Q(W)∗x̃ + b            Q: 8 bits per output channel, x̃ from the rounded layers before
    Result  b' = b − (E[ỹ] − E[y])                  E over the pixels of all images, per output channel

This is Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", 2019, section 4.2,
eq. 16-17, with measured means (their appendix D) instead of those of batch norms. The float and the rounded network run
side by side, layer by layer, and each layer is corrected before the layers after it are measured. The rounding errors
are fixed, so the correction costs no time at inference; it helps most if channels have few weights, as in depthwise
layers. Beyond the paper, each shift is reduced by its uncertainty over the images (`_certain`).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from slimseg.graph import ops
from slimseg.graph.edit import shared_with
from slimseg.graph.fold import fold_scales
from slimseg.graph.graph import Graph
from slimseg.quantisation.rounding import rounded, rounded_weights
from slimseg.quantisation.weight_layout import as_stored, by_channels

Ranges = Mapping[str, tuple[float, float]]


@torch.no_grad()
def bias_corrected(graph: Graph, images: Tensor, ranges: Ranges | None = None, bits: int = 8) -> Graph:
    """The float graph, batch norms folded, with biases corrected for the rounding of its weights.

    Args:
        images: (N, C, H, W), preprocessed; memory holds one layer's values of all N. Some dozens are enough.
        ranges: (min, max) by node, for the activations to round to 8 bits; the file has to be quantised with the same
            ranges. None: only weights are rounded, which does as well unless ranges clip much.
        bits: number of bits of the weights.
    """
    result = fold_scales(graph)
    _SideBySide(result, ranges or {}, bits).run(images)
    return result


@dataclass(frozen=True)
class _Both:
    """A value of the float network and of the rounded one."""

    exact: Any
    rounded: Any


class _SideBySide(fx.Interpreter):
    """Runs both networks at once and corrects the biases of the graph on the way."""

    def __init__(self, graph: Graph, ranges: Ranges, bits: int) -> None:
        super().__init__(graph.module)
        self.network, self.ranges, self.bits = graph, ranges, bits

    def run_node(self, n: fx.Node) -> Any:
        if n.op == "output":
            return super().run_node(n)
        layer = self.network.layer(n)
        both = self._mixed(n, layer) if isinstance(layer, ops.MIXING) else self._plain(n)
        return _Both(both.exact, self._on_grid(n, both.rounded))

    def _plain(self, n: fx.Node) -> _Both:
        if n.op in ("placeholder", "get_attr"):
            value = super().run_node(n)
            return _Both(value, value)
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        sides = (getattr(self, n.op)(n.target, _side(args, side), _side(kwargs, side)) for side in ("exact", "rounded"))
        return _Both(*sides)

    def _mixed(self, n: fx.Node, layer: ops.Mixing) -> _Both:
        (source,), _ = self.fetch_args_kwargs_from_env(n)
        exact, value = layer(source.exact), on_grid(layer, self.bits)(source.rounded)
        if shared_with(self.network, n):
            return _Both(exact, value)  # a correction for one of its calls would be wrong for the others
        axis = value.ndim - 1 if isinstance(layer, nn.Linear) else 1
        shift = _certain((value - exact).movedim(axis, 1).flatten(2).mean(2) if value.ndim > 2 else value - exact)
        bias = torch.zeros_like(shift) if layer.bias is None else layer.bias.detach()
        layer.bias = nn.Parameter(bias - shift)
        return _Both(exact, value - shift.reshape(-1, *(1 for _ in range(value.ndim - 1 - axis))))

    def _on_grid(self, n: fx.Node, value: Any) -> Any:
        if n.name not in self.ranges:
            return value
        low, high = (torch.tensor(end, dtype=torch.float64) for end in self.ranges[n.name])
        return rounded(value, low, high)


def _certain(shifts: Tensor) -> Tensor:
    """(channels,): the mean over images of their shifts (images, channels), shrunk by its uncertainty.

    The shrinkage follows from the mean's standard error (James and Stein, "Estimation with Quadratic Loss", 1961,
    positive part). Without it, a range that clips one image of sixteen gives a mean that is wrong for all others.
    """
    count, mean = len(shifts), shifts.mean(0)
    error = shifts.var(0, correction=0) / max(count - 1, 1)
    return mean * (1 - error / mean.square().clamp(min=torch.finfo(mean.dtype).tiny)).clamp(min=0)


def on_grid(layer: ops.Mixing, bits: int = 8) -> ops.Mixing:
    """A copy of a layer whose weights are rounded to the symmetric grids of their output channels."""
    result, weight = copy.deepcopy(layer), by_channels(layer)
    flat = rounded_weights(weight.flatten(0, 1), 0, bits)
    result.weight = nn.Parameter(as_stored(layer, flat.reshape(weight.shape)))
    return result


def _side(arguments: Any, side: str) -> Any:
    return fx.node.map_aggregate(arguments, lambda each: getattr(each, side) if isinstance(each, _Both) else each)
