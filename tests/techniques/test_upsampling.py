"""The least-squares fit finds a convolution + resize again, and is the best there is."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from slimseg.graph.ops import CroppedConvTranspose2d
from slimseg.techniques.upsampling import fitted


def composed(convolution: nn.Conv2d, stride: int, mode: str) -> nn.ConvTranspose2d:
    """The transposed convolution that resize∘convolution is, away from the border: its kernel is the response."""
    taps = convolution.kernel_size[0]
    cells = taps + 2
    kernel = cells * stride
    layer = nn.ConvTranspose2d(
        convolution.in_channels, convolution.out_channels, kernel, stride, (cells // 2) * stride, bias=True
    )
    impulse = torch.zeros(convolution.in_channels, convolution.in_channels, 11, 11)
    for channel in range(convolution.in_channels):
        impulse[channel, channel, 5, 5] = 1
    with torch.no_grad():
        align = {"align_corners": False} if mode == "bilinear" else {}
        response = F.interpolate(
            F.conv2d(impulse, convolution.weight, padding=taps // 2), scale_factor=stride, mode=mode, **align
        )
        start = (5 - cells // 2) * stride
        layer.weight.copy_(response[..., start : start + kernel, start : start + kernel])
        layer.bias.copy_(convolution.bias)
    return layer


@pytest.mark.parametrize("mode", ["bilinear", "nearest-exact"])
@pytest.mark.parametrize("stride", [2, 3, 4])
@pytest.mark.parametrize("taps", [1, 3])
def test_what_is_a_resized_convolution_is_found_again(taps, stride, mode):
    torch.manual_seed(0)
    convolution = nn.Conv2d(4, 6, taps, padding=taps // 2)
    layer = composed(convolution, stride, mode)
    result = fitted(layer, taps, mode)
    torch.testing.assert_close(result.weight, convolution.weight, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(result.bias, convolution.bias)
    x = torch.randn(1, 4, 10, 12)
    with torch.no_grad():
        size = (10 * stride, 12 * stride)
        resized = F.interpolate(result(x), size, mode=mode, **({"align_corners": False} if mode == "bilinear" else {}))
        inner = (..., slice(4 * stride, -4 * stride), slice(4 * stride, -4 * stride))
        torch.testing.assert_close(resized[inner], layer(x)[inner], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("kernel", "padding", "extra"), [(2, 0, 0), (4, 1, 0), (3, 1, 1), (5, 2, 1)])
def test_the_fit_is_a_minimum_on_white_noise(kernel, padding, extra):
    """Least squares on impulses is least squares on white noise: no other weights come nearer."""
    torch.manual_seed(0)
    layer = nn.ConvTranspose2d(3, 2, kernel, 2, padding, extra, bias=False)
    result = fitted(layer, 3, "bilinear")
    assert result.bias is not None
    x = torch.randn(16, 3, 40, 40)
    inner = (..., slice(8, -8), slice(8, -8))

    def error(weight: torch.Tensor) -> float:
        with torch.no_grad():
            resized = F.interpolate(F.conv2d(x, weight, padding=1), (80, 80), mode="bilinear", align_corners=False)
            return (resized[inner] - layer(x)[inner]).square().mean().item()

    best = error(result.weight)
    for _ in range(8):
        assert error(result.weight + 0.05 * torch.randn_like(result.weight)) > best


def test_kernel_of_another_height_and_width():
    layer = nn.ConvTranspose2d(2, 2, (2, 4), 2, (0, 1))
    assert fitted(layer, 3, "bilinear")(torch.zeros(1, 2, 5, 5)).shape == (1, 2, 5, 5)


def test_a_crop_counts_like_padding():
    torch.manual_seed(0)
    padded = nn.ConvTranspose2d(3, 2, 4, 2, 1)
    cropped = CroppedConvTranspose2d(3, 2, 4, 2, crop=(1, 1, 1, 1))
    cropped.load_state_dict(padded.state_dict())
    torch.testing.assert_close(fitted(cropped, 3, "bilinear").weight, fitted(padded, 3, "bilinear").weight)
