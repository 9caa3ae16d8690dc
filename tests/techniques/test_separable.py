"""The factorisation is exact at full rank and nearer with every pair."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from slimseg.techniques.separable import factorise


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("kernel", "stride", "dilation"), [((3, 3), 1, 1), ((3, 3), 2, 2), ((1, 5), 1, 1), ((2, 3), 2, 1)]
)
def test_full_rank_is_exact(kernel, stride, dilation, bias):
    torch.manual_seed(0)
    layer = nn.Conv2d(8, 16, kernel, stride, 1, dilation, bias=bias)
    x = torch.randn(2, 8, 15, 17)
    torch.testing.assert_close(factorise(layer, kernel[0] * kernel[1])(x), layer(x), atol=1e-4, rtol=1e-4)


def test_error_falls_with_rank():
    torch.manual_seed(0)
    layer, x = nn.Conv2d(8, 16, 3), torch.randn(4, 8, 12, 12)
    errors = [(factorise(layer, rank)(x) - layer(x)).square().mean().item() for rank in range(1, 10)]
    assert all(later < earlier for earlier, later in itertools.pairwise(errors))
    assert errors[-1] < 1e-8


def test_a_separable_convolution_is_found_again():
    torch.manual_seed(0)
    depthwise, pointwise = torch.randn(8, 1, 3, 3), torch.randn(12, 8, 1, 1)
    layer = nn.Conv2d(8, 12, 3)
    with torch.no_grad():
        layer.weight.copy_(pointwise * depthwise.permute(1, 0, 2, 3))
    x = torch.randn(1, 8, 9, 9)
    torch.testing.assert_close(factorise(layer, 1)(x), layer(x), atol=1e-4, rtol=1e-4)


def test_rank_one_is_the_nearest_of_all_rank_one_pairs():
    """Eckart-Young: gradient descent from the fit does not lower the weight error."""
    torch.manual_seed(0)
    layer = nn.Conv2d(8, 8, 3)
    block = factorise(layer, 1)
    (depthwise, pointwise) = block.pairs()[0]

    def error() -> torch.Tensor:
        return (pointwise.weight * depthwise.weight.permute(1, 0, 2, 3) - layer.weight.detach()).square().sum()

    gradients = torch.autograd.grad(error(), [depthwise.weight, pointwise.weight])
    assert max(each.abs().max().item() for each in gradients) < 1e-4
