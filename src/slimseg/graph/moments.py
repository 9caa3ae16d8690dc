"""Mean and variance of every channel, estimated from the weights alone: no image is needed.

The output of a batch norm has mean β and variance γ² on its training data. In the layers after it, values are assumed
normally distributed, channels independent, and pixels under one kernel correlated with ρ = ½:

    convolution   m' = Σ W m + b,   v' = Σ_i v_i ((1 − ρ) Σ_k W_ik² + ρ (Σ_k W_ik)²),   i channels, k pixels
    ReLU          m' = m Φ(z) + s φ(z),   E[y²] = (m² + v) Φ(z) + m s φ(z),   s = √v, z = m / s

(Frey and Hinton, "Variational Learning in Nonlinear Gaussian Belief Networks", 1999, for the rectifier.) Real
channels are not independent, so variances many layers after the last batch norm are rough.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from slimseg.graph import ops
from slimseg.graph.graph import Graph
from slimseg.graph.shapes import pair

CORRELATION = 0.5  # between neighbouring pixels
_IMAGE_MEAN, _IMAGE_STD = 110.0, 65.0  # of everyday photographs, in units of bytes


@dataclass(frozen=True)
class Moments:
    """`mean` and `variance` of every channel, each (C,)."""

    mean: Tensor
    variance: Tensor

    @classmethod
    def standard(cls, channels: int) -> Moments:
        return cls(torch.zeros(channels), torch.ones(channels))


@torch.no_grad()
def moments(graph: Graph, node: fx.Node, known: dict[fx.Node, Moments] | None = None) -> Moments:
    """Expected moments of a node's value (1, C, H, W); `known` caches those of the nodes before it."""
    known = {} if known is None else known
    waiting = [node]
    while waiting:
        current = waiting[-1]
        layer = graph.layer(current)
        self_contained = layer is None or isinstance(layer, nn.BatchNorm2d)
        missing = [] if self_contained else [each for each in current.all_input_nodes if each not in known]
        if missing:
            waiting += missing
            continue
        waiting.pop()
        if current not in known:
            inputs = [] if self_contained else [known[each] for each in current.all_input_nodes]
            known[current] = _of(graph, current, layer, inputs)
    return known[node]


def _of(graph: Graph, node: fx.Node, layer: nn.Module | None, inputs: list[Moments]) -> Moments:
    shape = graph.shape(node)
    if node.op == "placeholder":
        return image_moments(graph)
    if isinstance(layer, nn.BatchNorm2d):
        return _after_norm(layer)
    if layer is None or len(shape) != 4:
        return Moments.standard(shape[1])
    result = through(layer, inputs)
    return result if len(result.mean) == shape[1] else Moments.standard(shape[1])


def image_moments(graph: Graph) -> Moments:
    """Moments of everyday photographs, preprocessed for the network."""
    channels = graph.input_shape[1]
    preprocessing = graph.description.preprocessing
    if channels != len(preprocessing.mean):
        return Moments.standard(channels)
    mean, std = torch.tensor(preprocessing.mean), torch.tensor(preprocessing.std)
    return Moments((_IMAGE_MEAN - mean) / std, (_IMAGE_STD / std) ** 2)


def _after_norm(layer: nn.BatchNorm2d) -> Moments:
    if layer.weight is None or layer.bias is None:
        return Moments.standard(layer.num_features)
    return Moments(layer.bias.detach().clone(), layer.weight.detach() ** 2)


def through(layer: nn.Module, inputs: list[Moments]) -> Moments:
    """Moments after one layer other than a batch norm, given its inputs'; unchanged for a layer without a rule."""
    first = inputs[0]
    if isinstance(layer, nn.Conv2d):
        return _convolved(layer, first)
    if isinstance(layer, nn.ConvTranspose2d):
        return _transposed(layer, first)
    if isinstance(layer, nn.ReLU):
        return rectified(first)
    if isinstance(layer, nn.ReLU6):
        return _clipped(first, 6.0)
    if isinstance(layer, ops.Add) and len(inputs) == 2:
        return Moments(first.mean + inputs[1].mean, first.variance + inputs[1].variance)
    if isinstance(layer, ops.Concat) and layer.dim == 1:
        return Moments(torch.cat([each.mean for each in inputs]), torch.cat([each.variance for each in inputs]))
    if isinstance(layer, ops.Slice) and layer.dim == 1:
        part = slice(layer.start, layer.stop, layer.step)
        return Moments(first.mean[part], first.variance[part])
    if isinstance(layer, ops.Affine):
        return _scaled(layer, first)
    if isinstance(layer, nn.MaxPool2d):
        return _largest(first, math.prod(pair(layer.kernel_size)))
    if isinstance(layer, nn.AvgPool2d):
        return Moments(first.mean, first.variance * _mean_share(math.prod(pair(layer.kernel_size))))
    return first  # nearly right for resizes and padding, rough for curved activations


def _convolved(layer: nn.Conv2d, given: Moments) -> Moments:
    return _mixed(layer.weight.detach(), layer.bias, given, layer.groups)


def _transposed(layer: nn.ConvTranspose2d, given: Moments) -> Moments:
    """Each output pixel sees one in stride² of the kernel's taps; this is the mean over a block of stride² pixels."""
    taps = layer.stride[0] * layer.stride[1]
    by_group = torch.unflatten(layer.weight.detach(), 0, (layer.groups, -1)).transpose(1, 2)
    result = _mixed(by_group.flatten(0, 1) / taps, None, given, layer.groups)
    shift = 0 if layer.bias is None else layer.bias.detach()
    return Moments(result.mean + shift, result.variance * taps)


def _mixed(weight: Tensor, bias: Tensor | None, given: Moments, groups: int) -> Moments:
    """Moments after a convolution with `weight` (O, I/groups, k, k)."""

    def mix(matrix: Tensor, values: Tensor) -> Tensor:
        by_group = matrix.reshape(groups, -1, matrix.shape[1])
        return torch.einsum("goi,gi->go", by_group, values.reshape(groups, -1)).flatten()

    sums, squares = weight.sum((2, 3)), weight.square().sum((2, 3))
    mean = mix(sums, given.mean)
    variance = mix((1 - CORRELATION) * squares + CORRELATION * sums.square(), given.variance)
    return Moments(mean if bias is None else mean + bias.detach(), variance)


def _mean_share(pixels: int) -> float:
    """Variance of the mean of correlated pixels, relative to the variance of one pixel."""
    return CORRELATION + (1 - CORRELATION) / pixels


def _largest(given: Moments, pixels: int) -> Moments:
    """Moments of the largest of correlated pixels: their common part plus the largest of their independent parts.

    The mean follows Blom, "Statistical Estimates and Transformed Beta-Variables", 1958; the variance is taken to be
    that of the pixels' mean.
    """
    own = torch.special.ndtri(torch.tensor((pixels - 0.375) / (pixels + 0.25)))
    deviation = ((1 - CORRELATION) * given.variance).sqrt()
    return Moments(given.mean + own * deviation, given.variance * _mean_share(pixels))


def _scaled(layer: ops.Affine, given: Moments) -> Moments:
    scale = torch.ones(1) if layer.scale is None else layer.scale.detach().flatten()
    shift = torch.zeros(1) if layer.shift is None else layer.shift.detach().flatten()
    fits = all(len(each) in (1, len(given.mean)) for each in (scale, shift))
    return Moments(given.mean * scale + shift, given.variance * scale**2) if fits else given


def rectified(given: Moments) -> Moments:
    """Moments of max(x, 0) for a normally distributed x."""
    deviation = given.variance.clamp(min=1e-12).sqrt()
    z = given.mean / deviation
    below = torch.special.ndtr(z)
    density = torch.exp(-0.5 * z**2) / (2 * torch.pi) ** 0.5
    mean = given.mean * below + deviation * density
    square = (given.mean**2 + given.variance) * below + given.mean * deviation * density
    return Moments(mean, (square - mean**2).clamp(min=1e-12))


def _clipped(given: Moments, top: float) -> Moments:
    """Moments of min(max(x, 0), top) = a - b with a = max(x, 0), b = max(x - top, 0) and E[ab] = E[b²] + top E[b]."""
    low, high = rectified(given), rectified(Moments(given.mean - top, given.variance))
    mean = low.mean - high.mean
    square = (low.variance + low.mean**2) - (high.variance + high.mean**2) - 2 * top * high.mean
    return Moments(mean, (square - mean**2).clamp(min=1e-12))
