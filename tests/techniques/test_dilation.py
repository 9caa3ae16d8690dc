"""A dilated convolution without its holes: same shape, same weights, nearer pixels."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from slimseg.errors import Unsupported
from slimseg.graph import edit, ops
from slimseg.graph.graph import Graph
from slimseg.techniques import named

NAME = "convolution without dilation"


def graph_of(*layers: nn.Module) -> Graph:
    torch.manual_seed(0)
    return edit.trace(nn.Sequential(*layers).eval(), (1, 8, 24, 32), "net")


@pytest.mark.parametrize("groups", [1, 2, 8])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation"),
    [
        ((3, 3), 1, (2, 2), (2, 2)),
        ((3, 3), 2, (4, 4), (4, 4)),
        ((5, 3), 1, (4, 6), (2, 6)),
        ((1, 3), 1, (0, 3), (1, 3)),
    ],
)
def test_shape_and_weights_stay(kernel, stride, padding, dilation, groups, bias) -> None:
    layer = nn.Conv2d(8, 16, kernel, stride, padding, dilation, groups, bias)
    graph = graph_of(layer)
    (site,) = named(NAME).find(graph, {}).sites
    assert site.needs == "labels"
    edited = named(NAME).apply(graph, site)
    dense = edited.layer_as(edited.output, nn.Conv2d)
    assert dense is not None
    assert (dense.dilation, dense.stride) == ((1, 1), layer.stride)
    assert torch.equal(dense.weight, layer.weight)
    x = torch.randn(2, 8, 24, 32)
    expected = nn.functional.conv2d(x, layer.weight, layer.bias, layer.stride, dense.padding, 1, groups)
    torch.testing.assert_close(edited(x), expected)
    assert edited(x).shape == graph(x).shape


def test_a_kernel_of_one_has_no_holes() -> None:
    assert named(NAME).find(graph_of(nn.Conv2d(8, 8, 1, dilation=3)), {}).sites == ()


@pytest.mark.parametrize("padding", [0, 1])
def test_without_padding_to_give_back_there_is_no_counterpart(padding: int) -> None:
    graph = graph_of(nn.Conv2d(8, 8, 3, padding=padding, dilation=4))
    found = named(NAME).find(graph, {})
    assert found.sites == ()
    assert "padding" in found.refusals[0].reason


def test_shared_weights_are_refused() -> None:
    layer = nn.Conv2d(8, 8, 3, padding=2, dilation=2)
    found = named(NAME).find(graph_of(layer, nn.ReLU(), layer), {})
    assert found.sites == ()
    assert all("shared" in refusal.reason for refusal in found.refusals)


def test_a_convolution_without_dilation_is_left_alone() -> None:
    graph = graph_of(nn.Conv2d(8, 8, 3, padding=2, dilation=2))
    (site,) = named(NAME).find(graph, {}).sites
    with pytest.raises(Unsupported):
        named(NAME).apply(graph_of(nn.Conv2d(8, 8, 3, padding=1)), site)


@pytest.mark.parametrize("amounts", [(4, 4, 4, 4), (5, 4, 6, 4)])
@pytest.mark.parametrize("stride", [1, 2])
def test_padding_by_a_layer_before_counts(amounts: tuple[int, int, int, int], stride: int) -> None:
    layer = nn.Conv2d(8, 8, 3, stride, dilation=4)
    graph = graph_of(nn.ReLU(), ops.Pad(amounts), layer, nn.ReLU())
    (site,) = named(NAME).find(graph, {}).sites
    assert site.layers == ("layer_1", "layer_2")
    edited = named(NAME).apply(graph, site)
    assert edited.shape(edited.output) == graph.shape(graph.output)
    x = torch.rand(1, 8, 24, 32)
    left, right, top, bottom = (amount - 3 for amount in amounts)
    padded = nn.functional.pad(x, (left, right, top, bottom))
    expected = nn.functional.conv2d(padded, layer.weight, layer.bias, stride).relu()
    torch.testing.assert_close(edited(x), expected)


def test_an_even_kernel_gives_back_more_at_its_end() -> None:
    graph = graph_of(nn.Conv2d(8, 8, 2, padding=2, dilation=2))
    (site,) = named(NAME).find(graph, {}).sites
    edited = named(NAME).apply(graph, site)
    assert edited.shape(edited.output) == graph.shape(graph.output)
