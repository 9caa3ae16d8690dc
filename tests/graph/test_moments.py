"""What the weights let expect, against what random values do."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from slimseg.graph import edit, ops
from slimseg.graph.description import Description
from slimseg.graph.moments import Moments, image_moments, moments, rectified, through
from slimseg.graph.preprocessing import Preprocessing


def samples(given: Moments, size: int = 48) -> Tensor:
    """Channels and pixels independent."""
    torch.manual_seed(1)
    return given.mean[:, None, None] + given.variance.sqrt()[:, None, None] * torch.randn(
        8, len(given.mean), size, size
    )


def measured(value: Tensor) -> Moments:
    return Moments(value.mean((0, 2, 3)), value.var((0, 2, 3)))


GIVEN = Moments(torch.tensor([0.5, -1.0, 2.0, 0.0]), torch.tensor([1.0, 0.5, 4.0, 2.0]))
# 1x1: pixels under one kernel are taken to be correlated, which these samples are not
EXACT = {
    "1x1 convolution": lambda: nn.Conv2d(4, 6, 1),
    "grouped 1x1 convolution": lambda: nn.Conv2d(4, 6, 1, groups=2, bias=False),
    "transposed convolution": lambda: nn.ConvTranspose2d(4, 3, 1),
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "slice": lambda: ops.Slice(1, 1, 3),
    "affine": lambda: ops.Affine(torch.tensor(2.0), torch.randn(4, 1, 1)),
    "nearest resize": lambda: ops.Resize((96, 96), "nearest"),
}


@pytest.mark.parametrize("make", EXACT.values(), ids=EXACT)
def test_one_layer(make):
    torch.manual_seed(0)
    layer = make()
    with torch.no_grad():
        expected = measured(layer(samples(GIVEN)))
    result = through(layer, [GIVEN])
    torch.testing.assert_close(result.mean, expected.mean, atol=0.05, rtol=0.05)
    torch.testing.assert_close(result.variance, expected.variance, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("layer", [nn.Conv2d(4, 6, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1, groups=4)])
def test_a_spatial_convolution_of_independent_and_of_equal_pixels(layer):
    """Half correlated pixels lie halfway between the two extremes."""
    with torch.no_grad():
        independent = measured(layer(samples(GIVEN))[:, :, 1:-1, 1:-1])
        torch.manual_seed(2)
        flat = GIVEN.mean + GIVEN.variance.sqrt() * torch.randn(20000, 4)
        equal = measured(layer(flat[:, :, None, None].expand(-1, -1, 3, 3))[:, :, 1:2, 1:2])
    result = through(layer, [GIVEN])
    torch.testing.assert_close(result.variance, (independent.variance + equal.variance) / 2, atol=0.05, rtol=0.1)
    torch.testing.assert_close(result.mean, independent.mean, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("layer", [nn.MaxPool2d(2), nn.MaxPool2d(3), nn.AvgPool2d(2)])
def test_a_pooling_of_half_correlated_pixels(layer):
    torch.manual_seed(0)
    size = int(layer.kernel_size)
    shared, own = torch.randn(20000, 4, 1, 1), torch.randn(20000, 4, size, size)
    value = GIVEN.mean[:, None, None] + GIVEN.variance.sqrt()[:, None, None] * (shared + own) / 2**0.5
    result, expected = through(layer, [GIVEN]), measured(layer(value))
    torch.testing.assert_close(result.mean, expected.mean, atol=0.05, rtol=0.05)
    torch.testing.assert_close(result.variance, expected.variance, atol=0.1, rtol=0.2)


def test_sums_and_concatenations():
    other = Moments(torch.ones(4), torch.ones(4))
    total = through(ops.Add(), [GIVEN, other])
    assert torch.equal(total.mean, GIVEN.mean + 1)
    assert torch.equal(total.variance, GIVEN.variance + 1)
    assert through(ops.Concat(), [GIVEN, other]).mean.tolist() == [*GIVEN.mean.tolist(), 1, 1, 1, 1]


def test_a_rectified_channel_far_below_zero_is_nearly_nothing():
    result = rectified(Moments(torch.tensor([-30.0, 30.0]), torch.tensor([1.0, 1.0])))
    assert result.mean[0] < 1e-6
    assert result.mean[1] == pytest.approx(30)
    assert (result.variance > 0).all()


def test_a_batch_norm_says_what_comes_out_of_it():
    norm = nn.BatchNorm2d(8)
    nn.init.uniform_(norm.weight, -2, 2)
    nn.init.uniform_(norm.bias)
    graph = edit.trace(nn.Sequential(nn.Conv2d(3, 8, 3), norm), (1, 3, 16, 16))
    result = moments(graph, graph.output)
    assert torch.equal(result.mean, norm.bias)
    assert torch.equal(result.variance, norm.weight**2)


def test_images_as_the_network_wants_them():
    graph = edit.trace(nn.Sequential(nn.Conv2d(3, 4, 1)), (1, 3, 8, 8))
    graph.description = Description(Preprocessing.of(110, 65))
    torch.testing.assert_close(image_moments(graph).mean, torch.zeros(3))
    torch.testing.assert_close(image_moments(graph).variance, torch.ones(3))
    assert moments(graph, graph.output).mean.shape == (4,)
