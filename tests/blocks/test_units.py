"""Residual, shuffle and inverted residual blocks: shapes, the papers' structure, and the vocabulary."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from slimseg.blocks.inverted_residual import InvertedResidual
from slimseg.blocks.residual import BasicBlock, Bottleneck
from slimseg.blocks.shuffle import ShuffleDownUnit, ShuffleUnit
from slimseg.graph import costs, edit
from slimseg.graph.vocabulary import operator_of

MAKERS = {
    "basic": BasicBlock,
    "bottleneck": Bottleneck,
    "inverted residual": InvertedResidual,
    "shuffle, unit d": ShuffleDownUnit,
}


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("channels", [(16, 16), (16, 24)])
@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_shapes_vocabulary_and_gradients(make, channels, stride):
    torch.manual_seed(0)
    block = make(*channels, stride)
    assert block(torch.randn(2, channels[0], 9, 12)).shape == (2, channels[1], -(-9 // stride), 12 // stride)
    block(torch.randn(2, channels[0], 9, 12)).square().sum().backward()
    assert all(each.grad is not None for each in block.parameters())
    graph = edit.trace(block.eval(), (1, channels[0], 9, 12))
    assert all(operator_of(graph.layer(node)) is not None for node in graph.layers())
    x = torch.randn(1, channels[0], 9, 12)
    torch.testing.assert_close(graph(x), block(x))


@pytest.mark.parametrize("make", [BasicBlock, Bottleneck, InvertedResidual])
def test_a_block_of_one_shape_passes_its_input_on(make):
    """With nothing in the body, what is left is the shortcut."""
    block = make(16, 16).eval()
    for layer in block.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.zeros_(layer.weight)
    x = torch.rand(1, 16, 5, 5)
    torch.testing.assert_close(block(x), x)


def test_a_bottleneck_works_on_a_quarter_of_the_channels():
    (spatial,) = [each for each in Bottleneck(64, 128).modules() if getattr(each, "kernel_size", None) == (3, 3)]
    assert (spatial.in_channels, spatial.out_channels) == (32, 32)


def test_an_inverted_residual_ends_linearly():
    torch.manual_seed(0)
    block = InvertedResidual(8, 16, expansion=6).eval()
    assert block(torch.randn(1, 8, 6, 6)).min() < 0
    assert block.depthwise.conv.groups == 48
    assert InvertedResidual(8, 16, expansion=1).expand is None


def test_a_shuffle_unit_convolves_half_of_the_channels_and_passes_the_others_on():
    torch.manual_seed(0)
    unit, x = ShuffleUnit(16).eval(), torch.randn(1, 16, 6, 6)
    y = unit(x)
    assert torch.equal(y[:, :4], x[:, 12:])
    assert torch.equal(y[:, 4:8], x[:, :4])
    torch.testing.assert_close(y[:, 8:], unit.branch(x[:, 4:12]))


def test_every_channel_reaches_every_other_within_a_few_shuffle_units():
    """What the shuffle is for: without it half of the channels would never meet the other half."""
    torch.manual_seed(0)
    units = nn.Sequential(*(ShuffleUnit(16, nn.Identity) for _ in range(5))).eval()
    x = torch.randn(1, 16, 1, 1)
    jacobian = torch.autograd.functional.jacobian(units, x).reshape(16, 16)
    assert (jacobian.abs() > 1e-7).all()


def test_a_shuffle_unit_has_fewer_macs_than_a_separable_convolution():
    unit = edit.trace(ShuffleUnit(64), (1, 64, 16, 16))
    separable = 16 * 16 * 64 * (9 + 64)
    assert costs.total(unit).macs == 16 * 16 * 32 * (32 + 9 + 32) < separable


@pytest.mark.parametrize(("make", "channels"), [(ShuffleUnit, (6,)), (ShuffleDownUnit, (8, 7))])
def test_channels_that_cannot_be_split_are_named(make, channels):
    with pytest.raises(ValueError, match=f"not {channels[-1]}"):
        make(*channels)
