"""Layers of sequences become layers of maps, with the same values, names and weights."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import slimseg
from slimseg.graph import edit, ops
from slimseg.graph.graph import Graph
from slimseg.graph.maps import as_maps

SIZE = (16, 24)


def kinds(graph: Graph) -> Counter[str]:
    return Counter(type(graph.layer(node)).__name__ for node in graph.layers())


def opened(network: nn.Module) -> Graph:
    """The network as a Graph, with the same values for one image and for two."""
    torch.manual_seed(0)
    for layer in network.modules():
        if isinstance(layer, nn.LayerNorm):
            nn.init.normal_(layer.weight)
            nn.init.normal_(layer.bias)
    graph = slimseg.load(network.eval(), SIZE)
    images = torch.randn(2, 3, *SIZE)
    with torch.no_grad():
        for each in (images[:1], images):
            torch.testing.assert_close(graph(each), network(each), rtol=1e-4, atol=1e-5)
    return graph


class MixFeedForward(nn.Module):
    """SegFormer's block without attention: tokens, a depthwise convolution on the map between two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.norm = nn.Conv2d(3, 8, 7, 4, 3), nn.LayerNorm(8)
        self.wide, self.narrow = nn.Linear(8, 16), nn.Linear(16, 8)
        self.depthwise, self.head = nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.patch(x)
        n, _, h, w = y.shape
        tokens = y.flatten(2).transpose(1, 2)
        wide = self.wide(self.norm(tokens))
        wide = self.depthwise(wide.transpose(1, 2).view(n, 16, h, w)).flatten(2).transpose(1, 2)
        tokens = tokens + self.narrow(F.gelu(wide))
        return self.head(tokens).permute(0, 2, 1).reshape(n, 5, h, w)


class ChannelsLast(nn.Module):
    """ConvNeXt's block: layer norm and linear layers on (N, H, W, C), with a scale per channel."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.depthwise = nn.Conv2d(3, 8, 4, 4), nn.Conv2d(8, 8, 7, padding=3, groups=8)
        self.norm, self.wide, self.narrow = nn.LayerNorm(8), nn.Linear(8, 32), nn.Linear(32, 8)
        self.scale = nn.Parameter(torch.rand(8))

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        z = self.depthwise(y).permute(0, 2, 3, 1)
        return y + (self.scale * self.narrow(F.gelu(self.wide(self.norm(z))))).permute(0, 3, 1, 2)


class BatchSecond(nn.Module):
    """Tokens as (H·W, N, C), as in the original transformer, with a table of positions."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.linear = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 6)
        self.positions = nn.Parameter(torch.randn(24, 1, 8))

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.stem(x).flatten(2).permute(2, 0, 1)
        return self.linear(tokens + self.positions).permute(1, 2, 0).unflatten(2, (4, 6))


class Pooled(nn.Module):
    """Statistics of tokens: a gate from their mean, and a part of the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.gate, self.head = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 8), nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.stem(x).flatten(2).transpose(1, 2)
        gate = self.gate(tokens.mean(1, keepdim=True)).sigmoid()
        first, second = (tokens * gate).chunk(2, -1)
        return self.head((first * second).softmax(-1)).transpose(1, 2).unflatten(2, (4, 6))


class Attention(nn.Module):
    """Two heads; the linear layer after attention is pulled onto the map that its result is added to."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 4, 4), nn.LayerNorm(8)
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        tokens = y.flatten(2).transpose(1, 2)
        n, length, channels = tokens.shape
        q, k, v = self.qkv(self.norm(tokens)).reshape(n, length, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = (F.softmax(q @ k.transpose(-2, -1) * 0.5, -1) @ v).transpose(1, 2).reshape(n, length, channels)
        return (tokens + self.out(mixed)).transpose(1, 2).reshape(y.shape)


@pytest.mark.parametrize("network", [MixFeedForward, ChannelsLast, BatchSecond, Pooled])
def test_nothing_but_maps_is_left(network: type[nn.Module]) -> None:
    found = kinds(opened(network()))
    assert not {"Linear", "Reshape", "Transpose"} & set(found), found


def test_attention_reads_maps() -> None:
    graph = opened(Attention())
    found = kinds(graph)
    assert not {"Linear", "MatMul", "Reshape", "Transpose"} & set(found), found
    assert found["Conv2d"] == 3
    assert found["Attention"] == 1
    assert {"qkv", "out", "norm"} <= {node.name for node in graph.layers()}, "layers keep their names"


def test_a_shared_linear_layer_stays_shared() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.both = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            tokens = self.stem(x).flatten(2).transpose(1, 2)
            return self.both(self.both(tokens).relu()).transpose(1, 2).unflatten(2, (4, 6))

    graph = opened(Shared())
    targets = [node.target for node in graph.layers() if isinstance(graph.layer(node), nn.Conv2d)]
    assert len(targets) == 3
    assert targets[1] == targets[2]


def test_a_network_of_maps_stays_as_it_is() -> None:
    graph = edit.trace(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), (1, 3, *SIZE))
    assert as_maps(graph) is graph
    flat = edit.trace(nn.Sequential(ops.Reshape((1, 3 * 16 * 24), False), nn.Linear(3 * 16 * 24, 4)), (1, 3, *SIZE))
    assert as_maps(flat) is flat


def test_other_input_sizes() -> None:
    graph = opened(MixFeedForward())
    larger = edit.at_input_size(graph, (32, 32))
    assert larger.shape(larger.output) == (1, 5, 8, 8)
