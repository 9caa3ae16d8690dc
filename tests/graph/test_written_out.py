"""Attention written as several layers computes the same, with every view of the network merged into its own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from slimseg.graph import edit, ops
from slimseg.graph.graph import Graph
from slimseg.graph.written_out import written_out

SIZE, WIDTH = (4, 6), 8
PIXELS = SIZE[0] * SIZE[1]


class OnMaps(nn.Module):
    """Keys and values are a smaller map, or a sequence."""

    def __init__(self, attention: ops.Attention, sequence: bool = False) -> None:
        super().__init__()
        self.queries, self.keys, self.values = nn.Conv2d(3, WIDTH, 1), nn.Conv2d(3, WIDTH, 2, 2), nn.Conv2d(3, 12, 2, 2)
        self.keys_tokens = ops.Reshape((1, PIXELS // 4, WIDTH), True) if sequence else nn.Identity()
        self.values_tokens = ops.Reshape((1, PIXELS // 4, 12), True) if sequence else nn.Identity()
        self.attention = attention

    def forward(self, x: Tensor) -> Tensor:
        keys, values = self.keys_tokens(self.keys(x)), self.values_tokens(self.values(x))
        return self.attention(self.queries(x), keys, values)


def attention(heads: int, scale: float = 0.5, bias: bool = False) -> ops.Attention:
    return ops.Attention(heads, scale, torch.randn(heads, PIXELS, PIXELS // 4) if bias else None)


def opened(network: nn.Module) -> Graph:
    torch.manual_seed(0)
    return edit.trace(network.eval(), (1, 3, *SIZE))


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("sequence", [False, True])
def test_computes_the_same(heads: int, bias: bool, sequence: bool) -> None:
    graph = opened(OnMaps(attention(heads, bias=bias), sequence))
    result = written_out(graph)
    assert not any(isinstance(result.layer(node), ops.Attention) for node in result.layers())
    image = torch.randn(1, 3, *SIZE)
    with torch.no_grad():
        torch.testing.assert_close(result(image), graph(image), rtol=1e-5, atol=1e-6)
