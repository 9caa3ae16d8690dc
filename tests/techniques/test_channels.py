"""Channels left out: which go, what is left, and what is said about it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from slimseg.errors import Unsupported
from slimseg.graph import edit, ops
from slimseg.graph.channel_groups import channel_groups, group_importance
from slimseg.graph.graph import Graph
from slimseg.techniques.channels import LEAST, Channels, Width, site_of
from slimseg.techniques.technique import Settings, Site

SHAPE = (1, 3, 16, 16)


def net(width: int = 32, between: nn.Module | None = None) -> Graph:
    torch.manual_seed(0)
    first, last = nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, 2, 1)
    return edit.trace(nn.Sequential(first, between or nn.ReLU(), last).eval(), SHAPE)


def test_half_of_the_channels_is_a_site_in_multiples_of_8() -> None:
    graph = net(40)
    (site,) = Channels().find(graph).sites
    assert site.variant == "40 to 16"
    assert (site.source, site.target, site.layers) == ("input_1", "layer_2", ("layer_0",))
    cut = Channels().apply(graph, site)
    assert cut.shape(cut.node("layer_0")) == (1, 16, 16, 16)
    assert cut.shape(cut.node(site.target)) == graph.shape(graph.node(site.target))


def test_the_least_important_leave_and_the_others_keep_their_weights_and_order() -> None:
    graph = net(16)
    graph.importance = {"layer_0": torch.arange(16.0).flip(0)}
    cut = Channels().apply(graph, Channels().find(graph).sites[0])
    old, new = (each.layer(each.node("layer_0")) for each in (graph, cut))
    torch.testing.assert_close(new.weight, old.weight[:8])
    torch.testing.assert_close(cut.importance["layer_0"], graph.importance["layer_0"][:8])


def test_channels_of_no_weight_leave_without_changing_the_result() -> None:
    graph = net(24)
    with torch.no_grad():
        for parameter in (graph.layer(graph.node("layer_0")).weight, graph.layer(graph.node("layer_0")).bias):
            parameter[3:11] = 0
    (group,) = channel_groups(graph)
    cut = Channels().apply(graph, site_of(graph, group, 16))
    x = torch.randn(SHAPE)
    with torch.no_grad():
        torch.testing.assert_close(cut(x), graph(x))
    assert group_importance(cut, channel_groups(cut)[0]).min() > 0


def test_few_channels_are_left_alone_and_obstacles_are_told() -> None:
    assert not Channels().find(net(LEAST - 1)).sites
    found = Channels().find(net(16, ops.DepthToSpace(1)))
    assert not found.sites
    (refusal,) = found.refusals
    assert refusal.layer == "layer_0"
    assert "layer_1, DepthToSpace" in refusal.reason


@pytest.mark.parametrize(
    "settings", [Width(32, 32), Width(32, 0), Width(32, 40), Width(24, 8), Settings(), Width(32, -8)], ids=repr
)
def test_a_site_that_is_not_there(settings: Settings) -> None:
    site = Site(Channels.name, ("layer_0",), "input_1", "layer_2", "images", "", settings)
    with pytest.raises(Unsupported, match="layer_0"):
        Channels().apply(net(), site)
    with pytest.raises(Unsupported, match="layer_9"):
        Channels().apply(net(), Site(Channels.name, ("layer_9",), "input_1", "layer_2", "images", "", Width(32, 8)))


def test_half_the_channels_of_a_trained_network_are_a_smaller_network_of_the_same_kind(shapes_graph: Graph) -> None:
    cut = shapes_graph
    for site in Channels().find(shapes_graph).sites:
        (now,) = (each for each in Channels().find(cut).sites if each.layers[0] == site.layers[0])
        cut = Channels().apply(cut, now)
    x = torch.randn(shapes_graph.input_shape)
    with torch.no_grad():
        assert cut(x).shape == shapes_graph(x).shape
    sizes = [sum(parameter.numel() for parameter in each.module.parameters()) for each in (cut, shapes_graph)]
    assert sizes[0] < 0.35 * sizes[1]
