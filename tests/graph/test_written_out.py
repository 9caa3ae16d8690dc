"""Attention written as several layers computes the same, with every view of the network merged into its own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from slimseg.graph import edit, ops
from slimseg.graph.graph import Graph
from slimseg.graph.written_out import layer_of, written_out
from slimseg.runtimes.litert.writing import writer as litert_writer
from slimseg.runtimes.ncnn import writer as ncnn_writer

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


def test_every_operator_has_the_name_of_the_attention_that_it_computes() -> None:
    """Profiles name layers, not parts of them."""
    graph = opened(OnMaps(attention(heads=2, bias=True)))
    layers = {node.name for node in graph.layers()}
    assert {layer_of(node) for node in written_out(graph).layers()} == layers
    tflite, ncnn = litert_writer.serialise(graph), ncnn_writer.serialise(graph)
    assert {name.layer for name in tflite.names.values()} == layers
    assert {name for covers in ncnn.covers.values() for name in covers} == layers


def test_views_around_attention_become_part_of_its_own() -> None:
    """Heads that are taken apart need one transpose each, however the network arranges its values before."""
    network = nn.Sequential(nn.Conv2d(3, WIDTH, 1), ops.Reshape((1, PIXELS, WIDTH), True))

    class OnSequences(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.attention = network, attention(heads=2)
            self.back = ops.Reshape((1, WIDTH, *SIZE), True)

        def forward(self, x: Tensor) -> Tensor:
            tokens = self.tokens(x)
            return self.back(self.attention(tokens, tokens, tokens))

    result = written_out(opened(OnSequences()))
    assert sum(isinstance(result.layer(node), ops.Transpose) for node in result.layers()) == 4
