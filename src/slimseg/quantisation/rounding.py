"""Rounding to 8 bits with gradients for training.

    Given   x, a range [l, h] that contains 0                   s = (h − l) / 255,  z = round(−128 − l/s)
    Result  y = s · (clamp(round(x/s) + z, −128, 127) − z)      as in the int8 specification of TFLite

    Given   ∂L/∂y
    Result  ∂L/∂x = ∂L/∂y within the range, else 0              ("straight through", Bengio et al., 2013)
            ∂L/∂h = Σ ∂L/∂y · (1 above the range, (y − x)/(h − l) within)
            ∂L/∂l = Σ ∂L/∂y · (1 below the range, −(y − x)/(h − l) within)

which are the gradients of LSQ (Esser et al., "Learned Step Size Quantization", 2020, eq. 3) for a step and an offset,
expressed by the ends of the range. Weights are rounded symmetrically, with a scale per output channel from its largest
magnitude.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

LOWEST, HIGHEST, STEPS = -128, 127, 255
_SMALLEST_SCALE = 1e-12  # the scale of a tensor that is 0 throughout


def grid_of(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """(scale, zero point) of a range, both float32; the range is extended to contain 0."""
    low, high = low.double().clamp(max=0), high.double().clamp(min=0)  # in double as the quantiser does: results differ
    scale = ((high - low) / STEPS).clamp(min=_SMALLEST_SCALE)
    return scale.float(), (LOWEST - low / scale).round().clamp(LOWEST, HIGHEST).float()


class _Round(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: Tensor, low: Tensor, high: Tensor) -> Tensor:
        scale, zero = grid_of(low, high)
        y = torch.fake_quantize_per_tensor_affine(x, scale, zero.int(), LOWEST, HIGHEST)
        context.save_for_backward(x, y, scale, zero)
        return y

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, y, scale, zero = context.saved_tensors
        # half a step wider than the range on each side: values that round to its ends are not clipped
        above, below = x > scale * (HIGHEST + 0.5 - zero), x < scale * (LOWEST - 0.5 - zero)
        outside = above | below
        within = gradient.masked_fill(outside, 0)
        rounding = (within * (y - x)).sum() / (scale * STEPS)
        to_high = (gradient * above).sum() + rounding
        to_low = (gradient * below).sum() - rounding
        return within, to_low.double(), to_high.double()


def rounded(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """x rounded to the 8-bit grid of [low, high] (scalars), with gradients for all three."""
    result: Tensor = _Round.apply(x, low, high)  # type: ignore[no-untyped-call]
    return result


def weight_scales(weights: Tensor, axis: int | None, bits: int = 8) -> Tensor:
    """The scale of each channel along `axis`, or a single one if that is None; from the largest absolute weight."""
    size = weights.detach().abs()
    largest = size.max() if axis is None else size.amax([dim for dim in range(size.ndim) if dim != axis])
    return (largest / _most(bits)).clamp(min=_SMALLEST_SCALE)


def rounded_weights(weights: Tensor, axis: int | None, bits: int = 8) -> Tensor:
    """Weights rounded to the grids of `weight_scales`."""
    scales = weight_scales(weights, axis, bits)
    zeros = torch.zeros_like(scales, dtype=torch.int32)
    if axis is None:
        return torch.fake_quantize_per_tensor_affine(weights, scales, zeros, -_most(bits), _most(bits))
    return torch.fake_quantize_per_channel_affine(weights, scales, zeros, axis, -_most(bits), _most(bits))


def rounded_bias(bias: Tensor, scales: Tensor) -> Tensor:
    """A bias rounded to multiples of `scales`, which are the input's scale times the weights' scales.

    Gradients pass straight through.
    """
    return bias + ((bias / scales).round() * scales - bias).detach()


def _most(bits: int) -> int:
    return int(2 ** (bits - 1) - 1)
