"""The 8-bit arithmetic of XNNPACK's kernels, so that a network evaluated here gives bit for bit the file's outputs.

A network of 8-bit values roughly doubles a small difference in every layer: if one value in 10⁵ is rounded the other
way, one pixel in 200 changes class in the end. Training can use real numbers on 8-bit grids, but evaluation therefore
rounds exactly as the runtime does:

    convolution   round(float32(Σ x·w + b) · float32(s_x · s_w / s_y)), halves to even                (x, w, b integers)
    sum           (a · m_a + b · m_b + ½·2ᵏ) >> k,     m = round(2ᵏ · s/s_y),   k = 20 − ⌊log₂ of the larger s/s_y⌋
    conversion    (x · m + ½·2⁸) >> 8,                 m = round(2⁸ · s_x/s_y)
    leaky ReLU    (x · m + ½·2⁸) >> 8,                 m as above, times the slope where x is negative
    resize        neighbours weighted by multiples of 2⁻¹¹, halves rounded up

(XNNPACK's microparams-init.c and indirection.c.)
Inputs and outputs are real numbers. A value "in steps of `scale`" is an integer multiple of that scale.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from slimseg.graph.ops import Resize
from slimseg.quantisation.rounding import rounded_weights, weight_scales

_SUM_BITS, _CONVERSION_BITS, _RESIZE_BITS = 20, 8, 11


def convolution(layer: nn.Module, axis: int | None, x: Tensor, scale: Tensor, target: Tensor, bits: int) -> Tensor:
    """A convolution, transposed convolution or linear layer: x in steps of `scale`, the result in steps of `target`.

    `axis` is the dimension of the output channels in the weights; None if all weights have one scale.
    """
    weight, parameters = layer.get_parameter("weight"), dict(layer.named_parameters())
    scales = weight_scales(weight, axis, bits)
    spread = scales if axis is None else scales.reshape([-1 if dim == axis else 1 for dim in range(weight.ndim)])
    constants = {"weight": (rounded_weights(weight, axis, bits) / spread).round()}
    if "bias" in parameters:
        constants["bias"] = (parameters["bias"] / (scale * scales)).round()
    total: Tensor = torch.func.functional_call(layer, constants, (x / scale).round())
    ratio = scale * scales / target
    return (total * _over_channels(ratio, total)).round() * target


def _over_channels(values: Tensor, like: Tensor) -> Tensor:
    return values.reshape(-1, *(1 for _ in like.shape[2:])) if values.ndim else values


def addition(a: Tensor, b: Tensor, scales: tuple[Tensor, Tensor], target: Tensor) -> Tensor:
    """a + b, each in steps of its scale; the result in steps of `target`."""
    ratios = [float(scale / target) for scale in scales]
    bits = _SUM_BITS - torch.frexp(torch.tensor(max(ratios)))[1].item() + 1
    total = sum(
        (value / scale).round().double() * round(ratio * 2.0**bits)
        for value, scale, ratio in zip((a, b), scales, ratios, strict=True)
    )
    return (total / 2.0**bits + 0.5).floor().float() * target  # type: ignore[union-attr]


def conversion(x: Tensor, scale: Tensor, target: Tensor) -> Tensor:
    """x, in steps of `scale`, rounded to steps of `target`."""
    return leaky_relu(x, 1.0, scale, target)


def leaky_relu(x: Tensor, slope: float, scale: Tensor, target: Tensor) -> Tensor:
    """x, in steps of `scale`, times the slope where it is negative; the result in steps of `target`."""
    steps = (x / scale).round().double()
    above, below = (round(float(each * scale / target) * 2.0**_CONVERSION_BITS) for each in (1.0, slope))
    product = torch.where(steps < 0, below * steps, above * steps)
    return (product / 2.0**_CONVERSION_BITS + 0.5).floor().float() * target


def resize(layer: Resize, x: Tensor, scale: Tensor) -> Tensor:
    """A resize of x; both x and the result in steps of `scale`."""
    steps = (x / scale).round()
    if layer.mode != "bilinear":
        nearest: Tensor = layer(steps) * scale
        return nearest
    rows, columns = (_interpolation(layer, x.shape[dim], dim).to(x.device) for dim in (2, 3))
    return (rows @ steps.double() @ columns.T + 0.5).floor().float() * scale


def _interpolation(layer: Resize, length: int, dim: int) -> Tensor:
    """(resized length, length): the weights of a bilinear resize along one side, rounded to multiples of 2⁻¹¹."""
    impulses = torch.eye(length).reshape((length, 1, length, 1) if dim == 2 else (length, 1, 1, length))
    size = (layer.size[0], 1) if dim == 2 else (1, layer.size[1])
    weights: Tensor = Resize(size, layer.mode, layer.coordinates)(impulses).reshape(length, -1).T.double()
    return (weights * 2.0**_RESIZE_BITS).round() / 2.0**_RESIZE_BITS
