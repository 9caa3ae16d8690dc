"""Convolutions of concatenated maps, taken apart: equal, and with less to move."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from slimseg.graph import costs, edit, ops
from slimseg.graph.graph import Graph
from slimseg.techniques import Settings, Site, named
from slimseg.techniques.concat_to_sum import APART, BEFORE_RESIZE

NAME = "sum instead of concatenation"
LINKED = "added instead of concatenated"
SIZE = (32, 48)


class Pyramid(nn.Module):
    """Every scale brought to one size before a convolution; two scales are alike, one input comes twice."""

    def __init__(self, kernel: int = 1, mode: str = "bilinear", coordinates: str = "half_pixel") -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.middle, self.other_half = nn.Conv2d(6, 10, 3, 2, 1), nn.Conv2d(6, 4, 3, 2, 1)
        self.quarter = nn.Conv2d(10, 12, 3, 2, 1)
        self.up1, self.up2, self.up3 = (ops.Resize(SIZE, mode, coordinates) for _ in range(3))  # type: ignore[arg-type]
        self.join = ops.Concat()
        self.mix = nn.Conv2d(6 + 10 + 4 + 12 + 6, 7, kernel, padding=kernel // 2)
        self.last = nn.Sequential(nn.BatchNorm2d(7), nn.ReLU(), nn.Conv2d(7, 3, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        half = self.middle(x)
        joined = self.join(x, self.up1(half), self.up2(self.other_half(x)), self.up3(self.quarter(half)), x)
        return self.last(self.mix(joined))


def graph_of(net: nn.Module) -> Graph:
    torch.manual_seed(0)
    return edit.trace(net.eval(), (1, 3, *SIZE), "net")


def sites(graph: Graph) -> dict[Settings, Site]:
    return {site.settings: site for site in named(NAME).find(graph).sites}


@pytest.mark.parametrize(
    ("mode", "coordinates"), [("bilinear", "half_pixel"), ("bilinear", "align_corners"), ("nearest", "half_pixel")]
)
def test_a_pyramid_is_mixed_before_it_is_resized(mode: str, coordinates: str) -> None:
    graph = graph_of(Pyramid(1, mode, coordinates))
    found = sites(graph)
    assert set(found) == {APART, BEFORE_RESIZE}
    x = torch.randn(2, 3, *SIZE)
    for site in found.values():
        assert site.source == "stem"
        edited = named(NAME).apply(graph, site)
        torch.testing.assert_close(edited(x), graph(x), atol=1e-5, rtol=1e-5)
        assert not any(edited.layer_as(node, ops.Concat) for node in edited.layers())
    moved = named(NAME).apply(graph, found[BEFORE_RESIZE])
    resizes = [edited for edited in moved.layers() if moved.layer_as(edited, ops.Resize)]
    assert [moved.shape(node)[1] for node in resizes] == [7, 7]  # both halves at once
    assert costs.total(moved).memory_bytes < costs.total(graph).memory_bytes
    assert costs.total(moved).macs < costs.total(graph).macs


def test_a_larger_kernel_stays_behind_the_resize() -> None:
    graph = graph_of(Pyramid(3))
    (site,) = sites(graph).values()
    assert site.settings == APART
    x = torch.randn(1, 3, *SIZE)
    torch.testing.assert_close(named(NAME).apply(graph, site)(x), graph(x), atol=1e-5, rtol=1e-5)


class Two(nn.Module):
    """A concatenation that `reader` reads; `also` reads it, too."""

    def __init__(self, reader: nn.Module, also: nn.Module | None = None, again: bool = False) -> None:
        super().__init__()
        self.a, self.b, self.join, self.reader = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1), ops.Concat(), reader
        self.also, self.add, self.again = also, ops.Add(), again

    def forward(self, x: Tensor) -> Tensor:
        joined = self.join(self.a(x), self.b(x))
        y = self.reader(joined)
        if self.again:
            y = self.reader(y)
        return y if self.also is None else self.add(y, self.also(joined))


def test_what_others_read_stays_whole() -> None:
    assert sites(graph_of(Two(nn.Conv2d(8, 8, 1), nn.ReLU()))) == {}


@pytest.mark.parametrize(
    ("net", "reason"),
    [
        (lambda: Two(nn.Conv2d(8, 8, 1, groups=2)), "2 groups"),
        (lambda: Two(nn.Conv2d(8, 8, 1), again=True), "shared"),
    ],
)
def test_refusals(net, reason: str) -> None:
    found = named(NAME).find(graph_of(net()))
    assert found.sites == ()
    assert reason in found.refusals[0].reason


def test_added_instead_of_concatenated_before_a_larger_kernel() -> None:
    graph = graph_of(Pyramid(3))
    found = {site.variant: site for site in named(LINKED).find(graph).sites}
    assert set(found) == {"16 channels", "8 channels"}
    site = found["16 channels"]
    assert {"up1", "up2", "up3", "join", "mix"} == set(site.layers)
    edited = named(LINKED).apply(graph, site)
    assert not any(edited.layer_as(node, ops.Concat) for node in edited.layers())
    assert edited.shape(edited.output) == graph.shape(graph.output)
    assert costs.total(edited).macs < costs.total(graph).macs


def test_added_channels_are_the_best_ones() -> None:
    """Weights that only see sums of their inputs are found again, and equal."""
    torch.manual_seed(0)
    graph = graph_of(Pyramid(3))
    layer = graph.layer_as(graph.node("mix"), nn.Conv2d)
    assert layer is not None
    with torch.no_grad():
        layer.weight.copy_(torch.einsum("orhw,ri->oihw", torch.randn(7, 8, 3, 3), torch.randn(8, 38)))
    (site,) = (site for site in named(LINKED).find(graph).sites if site.variant == "8 channels")
    x = torch.randn(1, 3, *SIZE)
    torch.testing.assert_close(named(LINKED).apply(graph, site)(x), graph(x), atol=1e-3, rtol=1e-3)
