"""The scale of attention's scores goes into the queries, and only into them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import slimseg
from slimseg.graph import ops
from slimseg.graph.fold import fold_scales
from slimseg.graph.graph import Graph


class Attention(nn.Module):
    """Two heads, with queries, keys and values from one layer or from three; without a softmax, it is no attention."""

    def __init__(self, joint: bool, reads_queries_again: bool = False, softmax: bool = True) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, 4)
        self.joint, self.again = joint, reads_queries_again
        self.weights = nn.Softmax(-1) if softmax else nn.ReLU()
        self.qkv = nn.Linear(8, 24) if joint else nn.ModuleList(nn.Linear(8, 8, bias=False) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        tokens = y.flatten(2).transpose(1, 2)
        n, length, _ = tokens.shape
        parts = self.qkv(tokens).chunk(3, -1) if self.joint else [layer(tokens) for layer in self.qkv]
        q, k, v = (part.reshape(n, length, 2, 4).transpose(1, 2) for part in parts)
        mixed = self.weights((q @ k.transpose(-2, -1)) * 0.5) @ v
        if self.again:
            mixed = mixed + q
        return mixed.transpose(1, 2).reshape(n, length, 8).transpose(1, 2).reshape(y.shape)


def scales(graph: Graph) -> int:
    layers = [graph.layer(node) for node in graph.layers()]
    return sum(isinstance(each, ops.Affine) or (isinstance(each, ops.Attention) and each.scale != 1) for each in layers)


@pytest.mark.parametrize("softmax", [True, False])
@pytest.mark.parametrize(("joint", "again"), [(True, False), (False, False), (False, True)])
def test_scale_is_folded(joint: bool, again: bool, softmax: bool) -> None:
    torch.manual_seed(0)
    graph = slimseg.load(Attention(joint, again, softmax).eval(), (16, 16))
    assert scales(graph) == 1
    folded = fold_scales(graph)
    assert scales(folded) == 0
    image = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(folded(image), graph(image), rtol=1e-4, atol=1e-5)


def test_scale_stays_where_the_operands_are_needed_unscaled() -> None:
    class Similarity(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 8, 4, 4)

        def forward(self, x: Tensor) -> Tensor:
            y = self.stem(x)
            tokens = y.flatten(2).transpose(1, 2)
            return (((tokens @ tokens.transpose(1, 2)) * 0.5).softmax(-1) @ tokens).transpose(1, 2).reshape(y.shape)

    graph = slimseg.load(Similarity().eval(), (16, 16))
    assert scales(fold_scales(graph)) == scales(graph) == 1
