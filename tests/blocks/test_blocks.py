"""Blocks are written in the vocabulary, keep shapes, and train."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from slimseg.blocks.separable import SeparableConv2d
from slimseg.blocks.upsample import ConvUpsample
from slimseg.graph import edit


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("bias", [True, False])
def test_separable(rank, bias):
    block = SeparableConv2d(8, 12, (3, 5), (2, 1), (1, 2), (1, 1), bias, rank)
    plain = nn.Conv2d(8, 12, (3, 5), (2, 1), (1, 2), bias=bias)
    x = torch.randn(2, 8, 11, 9)
    assert block(x).shape == plain(x).shape
    assert sum(each.numel() for each in block.parameters()) == rank * 8 * (15 + 12) + 12 * bias
    graph = edit.trace(block, (1, 8, 11, 9))
    assert len(list(graph.layers())) == 2 * rank + rank - 1
    assert torch.equal(graph(x), block.eval()(x))
    block(x).sum().backward()
    assert all(each.grad is not None for each in block.parameters())


def test_separable_without_bias_is_linear():
    block = SeparableConv2d(4, 4, (3, 3), padding=(1, 1), bias=False, rank=2)
    assert block(torch.zeros(1, 4, 5, 5)).abs().max() == 0


@pytest.mark.parametrize("activation", [None, nn.ReLU()])
@pytest.mark.parametrize("mode", ["bilinear", "nearest", "nearest-exact"])
def test_upsample(mode, activation):
    block = ConvUpsample(nn.Conv2d(4, 6, 3, padding=1), (10, 14), mode, activation)
    x = torch.randn(1, 4, 5, 7)
    assert block(x).shape == (1, 6, 10, 14)
    assert len(list(edit.trace(block, (1, 4, 5, 7)).layers())) == (2 if activation is None else 3)
    if activation is not None:
        assert block(x).min() >= 0
