"""The factorisation is exact at full rank and nearer with every pair."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from slimseg.graph import edit
from slimseg.techniques import named
from slimseg.techniques.algebra.low_rank import low_rank
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


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("kernel", "stride", "dilation"), [((3, 3), 1, 1), ((3, 3), 2, 2), ((1, 5), 1, 1)])
def test_low_rank_with_all_channels_is_exact(kernel, stride, dilation, bias):
    torch.manual_seed(0)
    layer = nn.Conv2d(8, 16, kernel, stride, 1, dilation, bias=bias)
    x = torch.randn(2, 8, 15, 17)
    torch.testing.assert_close(low_rank(layer, (8, 16))(x), layer(x), atol=1e-4, rtol=1e-4)


def test_low_rank_weights_are_found_again():
    torch.manual_seed(0)
    layer = nn.Conv2d(32, 24, 3)
    with torch.no_grad():
        weight = torch.einsum("oa,abhw,ib->oihw", torch.randn(24, 8), torch.randn(8, 16, 3, 3), torch.randn(32, 16))
        layer.weight.copy_(weight / weight.std())
    x = torch.randn(1, 32, 9, 9)
    torch.testing.assert_close(low_rank(layer, (16, 8))(x), layer(x), atol=1e-3, rtol=1e-4)


def test_low_rank_is_a_stationary_point():
    """No small step of any factor lowers the weight error much: the iteration has settled near an optimum."""
    torch.manual_seed(0)
    layer = nn.Conv2d(32, 32, 3)
    with torch.no_grad():  # a spectrum that decays, as trained weights have
        decay = torch.linspace(1, 0.05, 32)
        layer.weight.mul_(decay[:, None, None, None] * decay[None, :, None, None])
    block = low_rank(layer, (16, 16))
    factors = [block.expand.weight, block.core.weight, block.reduce.weight]

    def error() -> torch.Tensor:
        whole = torch.einsum("oa,abhw,bi->oihw", factors[0][..., 0, 0], factors[1], factors[2][..., 0, 0])
        return (whole - layer.weight.detach()).square().sum()

    size = float(layer.weight.detach().square().sum())
    assert error().item() < 0.3 * size
    assert max(each.abs().max().item() for each in torch.autograd.grad(error(), factors)) < 1e-2 * size


def test_few_variants_with_ranks_in_multiples_of_8():
    torch.manual_seed(0)
    net = edit.trace(nn.Sequential(nn.Conv2d(3, 40, 1), nn.Conv2d(40, 72, 3, padding=1)).eval(), (1, 3, 16, 16), "net")
    sites = named("separable convolution").find(net).sites
    assert [site.variant for site in sites] == [
        "rank 1",
        "rank 2",
        *(f"1x1, {ranks}, 1x1" for ranks in ("16 to 32", "8 to 16", "8 to 8")),
    ]
    edited = named("separable convolution").apply(net, sites[2])
    assert [edited.shape(node)[1] for node in edited.layers()] == [40, 16, 32, 72]
