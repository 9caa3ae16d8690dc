"""Layers in front of a resize instead of behind it: nearly equal for 1x1s, on fewer pixels for all."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from slimseg.graph import costs, edit, ops
from slimseg.graph.graph import Graph
from slimseg.techniques import Settings, Site, named
from slimseg.techniques.late_resize import EVERY, POINTWISE

NAME = "resize behind what follows it"


def graph_of(*layers: nn.Module) -> Graph:
    torch.manual_seed(0)
    return edit.trace(nn.Sequential(nn.Conv2d(3, 16, 1), *layers).eval(), (1, 3, 16, 24), "net")


def sites(graph: Graph) -> dict[Settings, Site]:
    return {site.settings: site for site in named(NAME).find(graph).sites}


def up(mode: str = "bilinear") -> ops.Resize:
    return ops.Resize((64, 96), mode)  # type: ignore[arg-type]


@pytest.mark.parametrize(("mode", "most"), [("bilinear", 0.1), ("nearest", 1e-10)])
def test_a_chain_of_1x1s_is_nearly_the_same(mode: str, most: float) -> None:
    norm = nn.BatchNorm2d(12)
    graph = graph_of(up(mode), nn.Conv2d(16, 12, 1), norm, nn.ReLU(), nn.Conv2d(12, 5, 1))
    (site,) = sites(graph).values()
    assert (site.settings, site.layers[0], site.target) == (POINTWISE, "layer_1", "layer_5")
    edited = named(NAME).apply(graph, site)
    x = torch.nn.functional.interpolate(torch.randn(2, 3, 4, 6), (16, 24), mode="bilinear")
    error = (edited(x) - graph(x)).square().mean() / graph(x).var()
    assert error < most
    assert costs.total(edited).macs < costs.total(graph).macs / 10
    assert edited.layer_as(edited.output, ops.Resize)


def test_larger_kernels_are_a_variant() -> None:
    graph = graph_of(up(), nn.Conv2d(16, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 2, 1))
    found = sites(graph)
    assert {settings: site.target for settings, site in found.items()} == {POINTWISE: "layer_3", EVERY: "layer_6"}
    for site in found.values():
        assert named(NAME).apply(graph, site).shape(graph.output) == (1, 2, 64, 96)


@pytest.mark.parametrize(
    "layers",
    [
        (up(), nn.Conv2d(16, 5, 1)),  # exact: the head's
        (up(), nn.Conv2d(16, 32, 1), nn.ReLU()),  # more to enlarge
        (ops.Resize((4, 6)), nn.Conv2d(16, 5, 1), nn.ReLU()),
        (up(), nn.ReLU()),
        (up(), nn.Conv2d(16, 5, 3, 2, 1), nn.ReLU()),
    ],
)
def test_what_is_left_alone(layers: tuple[nn.Module, ...]) -> None:
    assert sites(graph_of(*layers)) == {}


def test_a_second_resize_can_follow() -> None:
    """Chains of resizes, as decoders have them, come apart one after another."""
    graph = graph_of(
        ops.Resize((32, 48)), nn.Conv2d(16, 8, 3, padding=1), nn.ReLU(), up(), nn.Conv2d(8, 4, 1), nn.ReLU(),
    )  # fmt: skip
    found = list(named(NAME).find(graph).sites)
    assert [site.layers[0] for site in found] == ["layer_1", "layer_4"]
    for site in found:
        graph = named(NAME).apply(graph, site)
    assert [type(graph.layer(node)).__name__ for node in graph.layers()] == [
        "Conv2d", "Conv2d", "ReLU", "Resize", "Conv2d", "ReLU", "Resize",
    ]  # fmt: skip
