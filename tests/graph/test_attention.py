"""Attention is one layer, however it was written out, and its channels and costs are those of its parts."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import slimseg
from slimseg.errors import GraphError
from slimseg.graph import costs, edit, ops
from slimseg.graph.channel_groups import channel_groups, without
from slimseg.graph.graph import Graph
from slimseg.quantisation.scale_flow import scale_flow

IMAGE, SIZE = (16, 24), (4, 6)
WIDTH, HEADS = 8, 2
PIXELS = SIZE[0] * SIZE[1]


def pixels_last(x: Tensor) -> Tensor:
    """(N, heads, channels of a head, pixels)."""
    return x.reshape(x.shape[0], HEADS, -1, PIXELS)


def pixels_first(x: Tensor) -> Tensor:
    return x.flatten(2).transpose(1, 2).reshape(x.shape[0], PIXELS, HEADS, -1).transpose(1, 2)


def usual(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = map(pixels_first, (q, k, v))
    return ((q @ k.transpose(-2, -1) * 0.5).softmax(-1) @ v).transpose(1, 2).flatten(2).transpose(1, 2)


def pixels_in_columns(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """As in networks of convolutions: the result is (channels, pixels) from the start."""
    q, k, v = map(pixels_last, (q, k, v))
    weights = (q.transpose(-2, -1) @ k * 0.5).softmax(-1)
    return (v @ weights.transpose(-2, -1)).flatten(1, 2)


def softmax_over_rows(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = map(pixels_last, (q, k, v))
    return (v @ (k.transpose(-2, -1) @ (q * 0.5)).softmax(-2)).flatten(1, 2)


def einsum(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (each.flatten(2).transpose(1, 2).unflatten(2, (HEADS, -1)) for each in (q, k, v))
    weights = (torch.einsum("blhd,bshd->bhls", q, k) / 2).softmax(-1)
    return torch.einsum("bhls,bshd->blhd", weights, v).flatten(2).transpose(1, 2)


def heads_in_the_batch(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (each.reshape(HEADS, -1, PIXELS).transpose(1, 2) for each in (q, k, v))
    return (torch.bmm(q * 0.5, k.transpose(1, 2)).softmax(-1) @ v).transpose(1, 2).reshape(1, -1, PIXELS)


def function_of_torch(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    mixed = F.scaled_dot_product_attention(*map(pixels_first, (q, k, v)), scale=0.5)
    return mixed.transpose(1, 2).flatten(2).transpose(1, 2)


class Network(nn.Module):
    def __init__(self, attention: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.queries, self.keys, self.values = (nn.Conv2d(3, width, 4, 4) for width in (WIDTH, WIDTH, 12))
        self.out = nn.Conv2d(12, 5, 1)
        self.attention = attention

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.attention(self.queries(x), self.keys(x), self.values(x))
        return self.out(mixed.reshape(1, 12, *SIZE))


def opened(network: nn.Module) -> Graph:
    torch.manual_seed(0)
    return slimseg.load(network.eval(), IMAGE)


def kinds(graph: Graph) -> list[str]:
    return [type(graph.layer(node)).__name__ for node in graph.layers()]


def keys_of_pooled_maps(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Maps of several sizes side by side (asymmetric non-local networks)."""
    keys, values = (
        torch.cat([F.avg_pool2d(x, 2).flatten(2), x.mean((2, 3), keepdim=True).flatten(2)], 2) for x in (k, v)
    )
    return ((q.flatten(2).transpose(1, 2) @ keys).softmax(-1) @ values.transpose(1, 2)).transpose(1, 2)


def test_keys_may_be_channels_first() -> None:
    assert {"Attention", "MatMul"} & set(kinds(opened(Network(keys_of_pooled_maps)))) == {"Attention"}


FORMS = [usual, pixels_in_columns, softmax_over_rows, einsum, heads_in_the_batch, function_of_torch]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_one_layer(form: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
    graph = opened(Network(form))  # which compares it with PyTorch
    assert kinds(graph) == ["Conv2d", "Conv2d", "Conv2d", "Attention", "Conv2d"]
    (layer,) = (layer for node in graph.layers() if (layer := graph.layer_as(node, ops.Attention)) is not None)
    assert (layer.heads, layer.scale, layer.bias, layer.mask) == (HEADS, 0.5, None, None)


def weights_are_read_twice(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    weights = (pixels_first(q) @ pixels_first(k).transpose(-2, -1)).softmax(-1)
    return (weights @ pixels_first(v) + weights.mean(-1, keepdim=True)).transpose(1, 2).flatten(2).transpose(1, 2)


def channels_are_compared(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = map(pixels_last, (v, v, v))
    return ((q @ k.transpose(-2, -1)).softmax(-1) @ v).flatten(1, 2)


@pytest.mark.parametrize("form", [weights_are_read_twice, channels_are_compared])
def test_other_computations_stay_written_out(form: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
    assert kinds(opened(Network(form))).count("MatMul") == 2


class Windows(nn.Module):
    """Windows of 2x2 pixels in the batch, with a bias for each head and a mask for each window (Swin)."""

    def __init__(self, joint: bool) -> None:
        super().__init__()
        self.qkv, self.joint = nn.Conv2d(3, 3 * WIDTH, 4, 4), joint
        self.bias = nn.Parameter(torch.randn(HEADS, 4, 4))
        self.register_buffer("mask", torch.where(torch.rand(6, 1, 4, 4) > 0.7, -100.0, 0.0))

    def forward(self, x: Tensor) -> Tensor:
        windows = self.qkv(x).reshape(1, 3 * WIDTH, 2, 2, 3, 2).permute(0, 2, 4, 3, 5, 1).reshape(6, 4, 3 * WIDTH)
        q, k, v = windows.reshape(6, 4, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4).unbind(0)
        if self.joint:
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=self.bias + self.mask)
        else:
            scores = q @ k.transpose(-2, -1) * 0.5 + self.bias
            mixed = (scores.view(1, 6, HEADS, 4, 4) + self.mask[None]).view(6, HEADS, 4, 4).softmax(-1) @ v
        tokens = mixed.transpose(1, 2).reshape(1, 2, 3, 2, 2, WIDTH)
        return tokens.permute(0, 5, 1, 3, 2, 4).reshape(1, WIDTH, *SIZE)


@pytest.mark.parametrize("joint", [False, True])
def test_windows_with_masks(joint: bool) -> None:
    graph = opened(Windows(joint))
    (layer,) = (layer for node in graph.layers() if (layer := graph.layer_as(node, ops.Attention)) is not None)
    assert layer.mask is not None
    assert layer.mask.shape == (6, HEADS if joint else 1, 4, 4)
    assert (layer.bias is None) == joint
    images = torch.randn(2, 3, *IMAGE)  # as in training
    torch.testing.assert_close(graph(images), torch.cat([graph(image[None]) for image in images]))


def test_a_saved_graph_is_the_same(tmp_path) -> None:
    graph = opened(Windows(joint=False))
    graph.save(tmp_path / "windows.pt2")
    assert kinds(slimseg.load(tmp_path / "windows.pt2")) == kinds(graph)


def test_shapes_that_do_not_fit_are_refused() -> None:
    def of(*shapes: tuple[int, ...], heads: int = 2, bias: Tensor | None = None) -> None:
        class Inputs(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.inputs = nn.ModuleList(nn.Conv2d(3, channels, kernel, kernel) for channels, kernel in shapes)
                self.attention = ops.Attention(heads, 1.0, bias)

            def forward(self, x: Tensor) -> Tensor:
                return self.attention(*(layer(x) for layer in self.inputs))

        edit.trace(Inputs(), (1, 3, *SIZE))

    of((8, 1), (8, 2), (6, 2))
    for shapes in (((8, 1), (6, 2), (6, 2)), ((8, 1), (8, 2), (8, 1)), ((8, 1), (8, 2), (5, 2))):
        with pytest.raises(GraphError, match=r"do not fit|do not divide"):
            of(*shapes)
    with pytest.raises(GraphError, match="a bias of"):
        of((8, 1), (8, 2), (8, 2), bias=torch.zeros(2, PIXELS, PIXELS))


def test_costs_are_those_of_both_products() -> None:
    graph = opened(Network(usual))
    node = graph.node(next(node.name for node in graph.layers() if isinstance(graph.layer(node), ops.Attention)))
    cost = costs.cost(graph, node)
    assert cost.macs == PIXELS * PIXELS * (WIDTH + 12)
    scores = 2 * HEADS * PIXELS * PIXELS  # each is written and read
    assert cost.memory_bytes == 4 * (scores + PIXELS * (2 * WIDTH + 12 + 12))


@pytest.mark.parametrize("heads", [1, 2])
def test_channels_are_cut_in_every_head(heads: int) -> None:
    """With one head, queries and keys lose channels together; several heads keep theirs."""

    class Projected(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.queries, self.keys, self.values = (nn.Conv2d(3, WIDTH, 1) for _ in range(3))
            self.attention, self.out = ops.Attention(heads, 0.5), nn.Conv2d(WIDTH, 5, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.attention(self.queries(x), self.keys(x), self.values(x)))

    graph = edit.trace(Projected().eval(), (1, 3, *SIZE))
    groups = {group.root: group for group in channel_groups(graph)}
    assert set(groups) == {"queries", "values"}
    assert set(groups["queries"].outputs) == {"queries", "keys"}
    assert set(groups["values"].inputs) == {"out"}
    assert all((group.fixed is None) == (heads == 1) for group in groups.values())
    if heads == 1:
        image = torch.randn(1, 3, *SIZE)
        for name in ("queries", "keys"):
            layer = graph.layer_as(graph.node(name), nn.Conv2d)
            assert layer is not None
            with torch.no_grad():
                layer.weight[2], layer.bias[2] = 0, 0  # type: ignore[index]
        cut = without(graph, groups["queries"], [2])
        assert cut.shape(cut.node("keys"))[1] == WIDTH - 1
        torch.testing.assert_close(cut(image), graph(image))
    scales = scale_flow(graph)
    assert scales.values["attention"].tolist() == scales.values["values"].tolist()
    assert set(scales.values["queries"].tolist()) <= set(scales.fixed)
