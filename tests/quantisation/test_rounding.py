"""Rounding to 8 bits, forwards and backwards."""

from __future__ import annotations

import pytest
import torch

from slimseg.quantisation.rounding import grid_of, rounded, rounded_bias, rounded_weights, weight_scales


def ends(low: float, high: float) -> tuple[torch.Tensor, torch.Tensor]:
    return tuple(torch.tensor(end, dtype=torch.float64, requires_grad=True) for end in (low, high))


@pytest.mark.parametrize(("low", "high"), [(0.0, 6.0), (-1.3, 2.9), (-5.0, 0.0), (1.0, 3.0)])
def test_values_lie_on_256_steps_with_zero_among_them(low, high):
    x = torch.linspace(low - 1, high + 1, 5000)
    y = rounded(x, *ends(low, high)).detach()
    scale, _ = grid_of(torch.tensor(low), torch.tensor(high))
    assert len(torch.unique(y)) <= 256
    assert torch.allclose((y / scale).round() * scale, y, atol=1e-6), "0 is one of the steps"
    within = (x > min(low, 0)) & (x < max(high, 0))
    assert (y - x)[within].abs().max() <= scale * 0.5001 + 1e-6


def test_gradient_of_the_ends_follows_the_loss():
    x = torch.randn(20000) * 2
    target = x.clone()
    loss = {}
    for high in (2.0, 2.2):
        low_end, high_end = ends(-2.0, high)
        value = (rounded(x, low_end, high_end) - target).square().sum()
        value.backward()
        loss[high] = (float(value.detach()), float(high_end.grad))
    slope = (loss[2.2][0] - loss[2.0][0]) / 0.2
    assert slope < 0
    assert loss[2.0][1] == pytest.approx(slope, rel=0.4)


def test_gradient_passes_within_and_stops_outside():
    x = torch.tensor([-3.0, 0.5, 3.0], requires_grad=True)
    rounded(x, *ends(-1.0, 1.0)).sum().backward()
    assert x.grad.tolist() == [0.0, 1.0, 0.0]


@pytest.mark.parametrize("axis", [0, 1, None])
@pytest.mark.parametrize(("bits", "most"), [(8, 127), (4, 7)])
def test_weights_are_whole_steps_of_their_channel(axis, bits, most):
    weights = torch.randn(6, 5, 3, 3)
    scales = weight_scales(weights, axis, bits)
    spread = scales if axis is None else scales.reshape([-1 if dim == axis else 1 for dim in range(4)])
    steps = rounded_weights(weights, axis, bits) / spread
    assert torch.allclose(steps, steps.round(), atol=1e-4)
    assert steps.abs().max() == pytest.approx(most, abs=1e-3)


def test_dead_channels_stay_zero():
    weights = torch.zeros(4, 3, 1, 1)
    assert torch.equal(rounded_weights(weights, 0), weights)


def test_bias_is_in_steps_and_learns():
    bias = torch.randn(4, requires_grad=True)
    scales = torch.tensor([0.1, 0.01, 0.02, 0.05])
    steps = rounded_bias(bias, scales) / scales
    assert torch.allclose(steps, steps.round(), atol=1e-4)
    rounded_bias(bias, scales).sum().backward()
    assert torch.equal(bias.grad, torch.ones(4))
