"""Runs of layers at the input's resolution, or half of it, are found whole and moved down whole."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from slimseg.errors import Unsupported
from slimseg.graph import costs, edit, ops
from slimseg.graph.graph import Graph
from slimseg.techniques import Site, named
from slimseg.techniques.full_resolution import STRIDED

NAME = "full resolution"


def graph_of(*layers: nn.Module, size: tuple[int, int] = (128, 160)) -> Graph:
    torch.manual_seed(0)
    return edit.trace(nn.Sequential(*layers).eval(), (1, 3, *size), "net")


def sites(graph: Graph) -> list[Site]:
    return list(named(NAME).find(graph).sites)


def runs(graph: Graph) -> list[tuple[str, ...]]:
    return list(dict.fromkeys(site.layers for site in sites(graph)))


def names(*numbers: int) -> tuple[str, ...]:
    return tuple(f"layer_{number}" for number in numbers)


def test_runs_end_where_the_size_changes() -> None:
    graph = graph_of(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8),
        nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 16, 1),
        nn.Conv2d(16, 16, 3, 2, 1), nn.Conv2d(16, 16, 3, padding=1),
    )  # fmt: skip
    assert runs(graph) == [names(0, 1, 2, 3), names(5, 6)]  # at the whole and at half; a quarter is small enough


def test_small_inputs_have_no_site() -> None:
    assert sites(graph_of(nn.Conv2d(3, 8, 3, padding=1), size=(48, 160))) == []


def test_activations_alone_are_no_site() -> None:
    assert sites(graph_of(nn.BatchNorm2d(3), nn.ReLU())) == []


@pytest.mark.parametrize("size", [(128, 160), (129, 161)])
@pytest.mark.parametrize("variant", ["half resolution", "stride 2"])
def test_a_quarter_of_the_work(variant: str, size: tuple[int, int]) -> None:
    graph = graph_of(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.Hardswish(), nn.Conv2d(8, 4, 1), size=size
    )
    site = next(site for site in sites(graph) if site.variant == variant)
    edited = named(NAME).apply(graph, site)
    assert edited.shape(edited.output) == graph.shape(graph.output)
    ratio = costs.total(graph).macs / costs.total(edited).macs
    assert ratio == pytest.approx(4, rel=0.05)
    assert costs.total(graph).params == costs.total(edited).params


def test_a_constant_image_comes_out_as_before() -> None:
    """Away from the border, where padding shows: nothing but resolution is lost."""
    graph = graph_of(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 3, padding=1))
    x = torch.full((1, 3, 128, 160), 0.7)
    for site in sites(graph):
        with torch.no_grad():
            before, after = graph(x), named(NAME).apply(graph, site)(x)
        torch.testing.assert_close(after[..., 16:-16, 16:-16], before[..., 16:-16, 16:-16], atol=1e-5, rtol=1e-5)


class Skip(nn.Module):
    """The value between the two convolutions is read by the sum as well, so they are two runs."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.add = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1), ops.Add()

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        return self.add(self.second(y), y)


def test_a_value_that_others_read_ends_a_run() -> None:
    assert runs(edit.trace(Skip().eval(), (1, 3, 128, 128), "net")) == [("first",), ("second",)]


def test_shared_weights_are_refused() -> None:
    layer = nn.Conv2d(3, 3, 3, padding=1)
    found = named(NAME).find(graph_of(layer, nn.ReLU(), layer))
    assert found.sites == ()
    assert "shared" in found.refusals[0].reason


def test_a_run_that_begins_with_an_activation_has_no_stride() -> None:
    graph = graph_of(nn.MaxPool2d(3, 1, 1), nn.ReLU(), nn.Conv2d(3, 8, 3, padding=1))
    (site,) = sites(graph)
    assert site.variant == "half resolution"
    wrong = Site(site.technique, site.layers, site.source, site.target, "images", "", STRIDED)
    with pytest.raises(Unsupported):
        named(NAME).apply(graph, wrong)
