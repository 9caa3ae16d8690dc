"""Attention on fewer tokens and with fewer heads: exact where the algebra says so, with the layers that it says."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from slimseg.graph import costs, edit, ops
from slimseg.graph.graph import Graph
from slimseg.techniques.banded_attention import BandedAttention, Split
from slimseg.techniques.fewer_heads import FewerHeads, Heads
from slimseg.techniques.pooled_attention import Pooled, PooledAttention

SIZE = (8, 16)


class Separate(nn.Module):
    """Attention whose queries, keys and values are computed by convolutions of their own."""

    def __init__(self, heads: int = 4, bias: Tensor | None = None) -> None:
        super().__init__()
        self.queries, self.keys, self.values = (nn.Conv2d(8, 8, 1) for _ in range(3))
        self.attention, self.projection = ops.Attention(heads, 0.7, bias), nn.Conv2d(8, 8, 1)
        self.before, self.add = nn.Conv2d(3, 8, 1), ops.Add()

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x)
        y = self.attention(self.queries(x), self.keys(x), self.values(x))
        return self.add(x, self.projection(y))


class Joint(Separate):
    """One convolution computes queries, keys and values; its channels are then taken apart."""

    def __init__(self) -> None:
        super().__init__()
        self.all = nn.Conv2d(8, 24, 1, bias=False)
        self.queries, self.keys, self.values = (ops.Slice(1, start, start + 8) for start in (0, 8, 16))

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x)
        y = self.all(x)
        return self.add(x, self.projection(self.attention(self.queries(y), self.keys(y), self.values(y))))


class Normed(Separate):
    """As TopFormer has it: batch norms behind all convolutions, an activation behind attention."""

    def __init__(self) -> None:
        super().__init__()
        self.queries, self.keys, self.values, self.projection = (self.normed() for _ in range(4))
        self.projection = nn.Sequential(nn.ReLU(), *self.projection)

    @staticmethod
    def normed() -> nn.Sequential:
        norm = nn.BatchNorm2d(8)
        nn.init.uniform_(norm.running_var, 0.5, 2)
        nn.init.uniform_(norm.weight, 0.5, 2)
        nn.init.normal_(norm.bias)
        return nn.Sequential(nn.Conv2d(8, 8, 1, bias=False), norm)


class Bare(Separate):
    """Attention among the pixels of one map, with nothing around it."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x)
        return self.add(x, self.attention(x, x, x))


def graph_of(net: nn.Module) -> Graph:
    torch.manual_seed(0)
    return edit.trace(net.eval(), (1, 3, *SIZE))


def in_blocks(side: int) -> Tensor:
    """An image that is constant within side×side pixels."""
    small = torch.randn(1, 3, SIZE[0] // side, SIZE[1] // side, generator=torch.Generator().manual_seed(1))
    return small.repeat_interleave(side, 2).repeat_interleave(side, 3)


def pooled(graph: Graph, what: Pooled) -> Graph:
    (site,) = (site for site in PooledAttention().find(graph).sites if site.settings == what)
    return PooledAttention().apply(graph, site)


@pytest.mark.parametrize("net", [Separate, Joint, Normed, Bare])
@pytest.mark.parametrize("ratio", [2, 4])
def test_equal_keys_are_exactly_their_mean(net: type[nn.Module], ratio: int) -> None:
    graph = graph_of(net())
    edited = pooled(graph, Pooled("keys and values", ratio))
    with torch.no_grad():
        torch.testing.assert_close(edited(in_blocks(ratio)), graph(in_blocks(ratio)), atol=1e-5, rtol=1e-5)
        assert not torch.allclose(edited(in_blocks(1)), graph(in_blocks(1)), atol=1e-4)


def test_queries_of_a_constant_image_are_exactly_their_mean() -> None:
    for net in (Separate(), Joint(), Normed(), Bare()):
        graph = graph_of(net)
        edited = pooled(graph, Pooled("queries", 2))
        image = torch.ones(1, 3, *SIZE)
        with torch.no_grad():
            torch.testing.assert_close(edited(image), graph(image), atol=1e-5, rtol=1e-5)


def test_projections_work_on_the_pooled_map() -> None:
    graph = graph_of(Separate())
    pixels, width = SIZE[0] * SIZE[1], 8
    before, projection = costs.total(graph).macs, pixels * width * width
    keys = costs.total(pooled(graph, Pooled("keys and values", 2))).macs
    assert before - keys == 2 * projection * 3 // 4 + 2 * pixels * pixels * width * 3 // 4
    queries = costs.total(pooled(graph, Pooled("queries", 2))).macs
    assert queries == keys


def test_attention_with_constants_or_odd_maps_is_refused() -> None:
    tokens = SIZE[0] * SIZE[1]
    (refusal,) = PooledAttention().find(graph_of(Separate(1, torch.randn(1, tokens, tokens)))).refusals
    assert "constants for single pairs" in refusal.reason
    odd = edit.trace(Separate().eval(), (1, 3, 7, 16))
    assert "do not divide" in PooledAttention().find(odd).refusals[0].reason


@pytest.mark.parametrize("net", [Separate, Joint])
def test_heads_without_effect_leave_exactly(net: type[nn.Module]) -> None:
    """Heads whose values are their bias alone: what they contribute is a constant."""
    module = net()
    layer, first = (module.all, 16) if isinstance(module, Joint) else (module.values, 0)
    with torch.no_grad():
        for head in (1, 3):
            layer.weight[first + 2 * head : first + 2 * head + 2] = 0
    graph = edit.trace(module.eval(), (1, 3, *SIZE))
    sites = FewerHeads().find(graph).sites
    assert [site.settings for site in sites] == [Heads(4, 3), Heads(4, 2)]
    for site in sites:
        edited = FewerHeads().apply(graph, site)
        with torch.no_grad():
            torch.testing.assert_close(edited(in_blocks(1)), graph(in_blocks(1)), atol=1e-5, rtol=1e-5)


def test_measured_importance_decides_which_heads_leave() -> None:
    graph = graph_of(Separate())
    graph.importance = {"values": torch.tensor([1.0, 1, 0, 0.1, 1, 1, 1, 1])}
    edited = FewerHeads().apply(graph, FewerHeads().find(graph).sites[0])
    kept = edited.layer_as(edited.node("projection_values"), nn.Conv2d)
    original = graph.layer_as(graph.node("values"), nn.Conv2d)
    assert kept is not None
    assert original is not None
    assert torch.equal(kept.weight, original.weight[[0, 1, 4, 5, 6, 7]])


def test_heads_leave_with_their_batch_norms_and_activations() -> None:
    module = Normed()
    with torch.no_grad():  # heads 0 and 2 give values below zero, which the ReLU takes away
        module.values[0].weight[[0, 1, 4, 5]] = 0
        module.values[1].bias[[0, 1, 4, 5]] = -1
        module.values[1].running_mean.zero_()
    graph = edit.trace(module.eval(), (1, 3, *SIZE))
    edited = FewerHeads().apply(graph, FewerHeads().find(graph).sites[1])
    with torch.no_grad():
        torch.testing.assert_close(edited(in_blocks(1)), graph(in_blocks(1)), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("net", [Separate, Normed])
def test_the_layer_behind_works_before_the_resize(net: type[nn.Module]) -> None:
    edited = pooled(graph_of(net()), Pooled("queries", 2))
    (resize,) = (node for node in edited.layers() if edited.layer_as(node, ops.Resize))
    assert [edited.layer_as(user, ops.Add) is not None for user in resize.users] == [True]


def test_heads_that_nothing_projects_or_with_constants_of_their_own_stay() -> None:
    (refusal,) = FewerHeads().find(graph_of(Separate(2, torch.randn(2, 128, 128)))).refusals
    assert "constants of their own" in refusal.reason
    (refusal,) = FewerHeads().find(graph_of(Bare())).refusals
    assert "alone reads its result" in refusal.reason


@pytest.mark.parametrize("net", [Separate, Joint, Bare])
@pytest.mark.parametrize("of", ["rows", "columns"])
def test_bands_see_only_themselves(net: type[nn.Module], of: str) -> None:
    graph = graph_of(net())
    (site,) = (site for site in BandedAttention().find(graph).sites if site.settings == Split(of, 2))
    edited = BandedAttention().apply(graph, site)
    dim = 2 if of == "rows" else 3
    half = SIZE[dim - 2] // 2
    part = edit.at_input_size(graph, (half, SIZE[1]) if of == "rows" else (SIZE[0], half))
    image = in_blocks(1)
    with torch.no_grad():
        apart = torch.cat([part(image.narrow(dim, start, half)) for start in (0, half)], dim)
        torch.testing.assert_close(edited(image), apart, atol=1e-5, rtol=1e-5)
    scores = (SIZE[0] * SIZE[1]) ** 2 * 16
    assert costs.total(graph).macs - costs.total(edited).macs == scores // 2


def test_maps_without_equal_bands_are_refused() -> None:
    odd = edit.trace(Separate().eval(), (1, 3, 5, 7))
    assert "equal bands" in BandedAttention().find(odd).refusals[0].reason
