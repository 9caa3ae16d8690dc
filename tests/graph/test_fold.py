"""Folding batch norm is exact, and every batch norm goes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from slimseg.graph import edit
from slimseg.graph.fold import fold_batch_norm
from slimseg.graph.graph import Graph


def norm(channels: int, affine: bool = True) -> nn.BatchNorm2d:
    layer = nn.BatchNorm2d(channels, affine=affine)
    nn.init.normal_(layer.running_mean)
    nn.init.uniform_(layer.running_var, 0.3, 3)
    if affine:
        nn.init.normal_(layer.weight)
        nn.init.normal_(layer.bias)
    return layer


def folded(graph: Graph) -> Graph:
    before = str(graph.module.graph)
    result = fold_batch_norm(graph)
    assert str(graph.module.graph) == before
    x = torch.randn(graph.input_shape)
    with torch.no_grad():
        torch.testing.assert_close(result(x), graph(x), atol=1e-5, rtol=1e-5)
    assert not [node for node in result.layers() if result.layer_as(node, nn.BatchNorm2d)]
    return result


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
def test_convolutions(kind, groups, bias, affine):
    torch.manual_seed(0)
    layer = kind(4, 8, 3, 2, 1, groups=groups, bias=bias)
    result = folded(edit.trace(nn.Sequential(layer, norm(8, affine)).eval(), (1, 4, 9, 9)))
    assert len(list(result.layers())) == 1


def test_a_norm_without_a_convolution_becomes_one():
    result = folded(edit.trace(nn.Sequential(nn.ReLU(), norm(4)).eval(), (1, 4, 5, 5)))
    assert result.layer_as(result.output, nn.Conv2d).groups == 4


class Shared(nn.Module):
    def __init__(self, share_norm: bool) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.norm, self.other = norm(4), norm(4)
        self.share_norm = share_norm

    def forward(self, x: Tensor) -> Tensor:
        if self.share_norm:
            return self.norm(self.b(self.norm(self.a(x))))
        return self.other(self.a(self.norm(self.a(x))))


@pytest.mark.parametrize("share_norm", [True, False])
def test_shared_layers(share_norm):
    folded(edit.trace(Shared(share_norm).eval(), (1, 4, 5, 5)))


class Skip(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        from slimseg.graph.ops import Add

        self.conv, self.norm, self.add = nn.Conv2d(4, 4, 1), norm(4), Add()

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return self.add(self.norm(x), x)


def test_a_convolution_that_others_read_keeps_its_weights():
    folded(edit.trace(Skip().eval(), (1, 4, 5, 5)))
