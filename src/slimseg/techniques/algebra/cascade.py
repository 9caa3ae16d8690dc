"""A dilated convolution as two undilated ones in a row with the same receptive field.

    Given   y = W ∗_d x,        taps d apart, so W has holes: W↑ of m + k − 1 pixels a side, m = (d − 1)(k − 1) + 1
    Result  y ≈ V ∗ (D ∗ x),    D depthwise of m×m pixels, V of k×k pixels as W: together m + k − 1 again

For each input channel i the two together have the kernel V[o, i] ∗ D[i]. It is linear in V for given D and in D for
given V, so alternating least squares lower the error in every iteration. Neighbouring pixels of a map are alike, so
kernels are compared after a blur B:

    minimise  Σ_o ‖B ∗ (V[o, i] ∗ D[i] − W↑[o, i])‖²

which counts little for a tap that has moved to the next pixel. The holes of W are not fitted exactly; training corrects
that. Rotating the outputs (W[:, i] = Q R, Q orthonormal) leaves the error unchanged, so only the k² rows of R are
fitted instead of O rows.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from slimseg.graph.ops import keeps_channels_apart
from slimseg.graph.shapes import pair
from slimseg.techniques.algebra.low_resolution import keeps_size

MOST_TAPS = 25  # of the depthwise kernel; larger ones take longer than the dilation costs
TURNS = 10  # iterations of the alternating least squares


def can_be_cascade(layer: nn.Conv2d) -> bool:
    """Whether a layer with one group, or a depthwise one, keeps the size and needs at most `MOST_TAPS`."""
    rows, columns = _depthwise_size(layer)
    whole_or_depthwise = layer.groups == 1 or keeps_channels_apart(layer)
    odd = all(taps % 2 == 1 for taps in (rows, columns, *pair(layer.kernel_size)))
    return whole_or_depthwise and odd and rows * columns <= MOST_TAPS and keeps_size(layer)


def cascade(layer: nn.Conv2d) -> nn.Sequential:
    """A depthwise convolution, then one of the layer's kernel size, undilated; for layers that `can_be_cascade`."""
    size, kernel = _depthwise_size(layer), pair(layer.kernel_size)
    channels = layer.in_channels
    first = nn.Conv2d(channels, channels, size, 1, _half(size), groups=channels, bias=False)
    second = nn.Conv2d(
        channels, layer.out_channels, kernel, 1, _half(kernel), groups=layer.groups, bias=layer.bias is not None
    )
    weight = layer.weight.detach().double()
    by_input = weight if layer.groups > 1 else weight.transpose(0, 1)  # (inputs, outputs of each, k, k)
    turned, rows = torch.linalg.qr(by_input.flatten(2))
    holes = _with_holes(rows.unflatten(2, kernel), pair(layer.dilation))
    fitted_first, fitted_rows = _fit(holes, size, kernel)
    fitted_second = (turned @ fitted_rows.flatten(2)).unflatten(2, kernel)
    with torch.no_grad():
        first.weight.copy_(fitted_first)
        second.weight.copy_(fitted_second if layer.groups > 1 else fitted_second.transpose(0, 1))
        if layer.bias is not None and second.bias is not None:
            second.bias.copy_(layer.bias)
    return nn.Sequential(first, second)


def _fit(wanted: Tensor, size: tuple[int, int], kernel: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """D (I, 1, *size) and V (I, O, *kernel) from kernels with holes (I, O, h, w)."""
    target = _blurred(wanted)
    generator = torch.Generator().manual_seed(0)
    first = torch.ones(len(wanted), 1, *size, dtype=wanted.dtype)
    first += 0.3 * torch.randn(first.shape, generator=generator, dtype=wanted.dtype)
    for _ in range(TURNS):
        second = _solve(first, target, kernel)
        first = _solve(second, target, size, shared=True)
        first = first / first.flatten(2).norm(dim=2)[..., None, None].clamp(min=1e-12)
    return first, _solve(first, target, kernel)


def _solve(known: Tensor, target: Tensor, size: tuple[int, int], shared: bool = False) -> Tensor:
    """The factors (I, O or 1, *size) that come nearest to the target when convolved with the known ones."""
    columns = _shifted(known, size)  # (I, O or 1, taps, pixels)
    pixels = target.flatten(2)[:, :, None]  # (I, O, 1, pixels)
    gram, right = columns @ columns.transpose(2, 3), (columns * pixels).sum(3)  # (I, 1 or O, taps, taps), (I, O, taps)
    if shared:  # one factor for all outputs
        gram, right = gram.sum(1, keepdim=True), right.sum(1, keepdim=True)
    ridge = 1e-8 * gram.diagonal(dim1=2, dim2=3).mean(2).clamp(min=1e-12)[..., None, None]
    eye = torch.eye(gram.shape[2], dtype=gram.dtype)
    factors: Tensor = torch.linalg.solve(gram + ridge * eye, right[..., None])[..., 0].unflatten(2, size)
    return factors


def _shifted(known: Tensor, size: tuple[int, int]) -> Tensor:
    """Blurred copies of kernels (I, O, h, w), shifted to every tap of a kernel of `size`: (I, O, taps, pixels)."""
    rows, columns = size
    moved = [
        F.pad(known, (column, columns - 1 - column, row, rows - 1 - row))
        for row in range(rows)
        for column in range(columns)
    ]
    return torch.stack([_blurred(each).flatten(2) for each in moved], 2)


def _blurred(kernels: Tensor) -> Tensor:
    """Kernels (I, O, h, w) after a binomial blur of 3×3 pixels: (I, O, h + 2, w + 2)."""
    row = torch.tensor([0.25, 0.5, 0.25], dtype=kernels.dtype)
    blur = torch.outer(row, row)[None, None]
    flat = kernels.reshape(-1, 1, *kernels.shape[2:])
    result = F.conv2d(flat, blur, padding=2)
    return result.reshape(*kernels.shape[:2], *result.shape[2:])


def _with_holes(weight: Tensor, dilation: tuple[int, int]) -> Tensor:
    rows, columns = ((taps - 1) * spread + 1 for taps, spread in zip(weight.shape[2:], dilation, strict=True))
    result = torch.zeros(*weight.shape[:2], rows, columns, dtype=weight.dtype)
    result[:, :, :: dilation[0], :: dilation[1]] = weight
    return result


def _depthwise_size(layer: nn.Conv2d) -> tuple[int, int]:
    rows, columns = (
        (spread - 1) * (taps - 1) + 1
        for spread, taps in zip(pair(layer.dilation), pair(layer.kernel_size), strict=True)
    )
    return rows, columns


def _half(size: tuple[int, int]) -> tuple[int, int]:
    return size[0] // 2, size[1] // 2
