"""What-ifs that are alike are found, and only those."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

from slimseg.deployment import Deployment
from slimseg.graph import edit, ops
from slimseg.graph.graph import Graph
from slimseg.planning.pricing import alike
from slimseg.progress import Silent
from slimseg.techniques import Settings, Site, named
from slimseg.techniques.separable import Factors


def convolution(channels: int = 16, **settings: object) -> nn.Conv2d:
    return nn.Conv2d(16, channels, 3, **({"padding": 1} | settings))  # type: ignore[arg-type]


def graph_of(*layers: nn.Module) -> Graph:
    return edit.trace(nn.Sequential(*layers).eval(), (1, 16, 24, 32), "net")


def sites(graph: Graph, technique: str = "separable convolution") -> list[Site]:
    return list(named(technique).find(graph).sites)


def test_same_settings_and_shapes_are_alike() -> None:
    graph = graph_of(convolution(), nn.ReLU(), convolution(), nn.ReLU(), convolution(), nn.ReLU())
    groups = alike.groups(graph, sites(graph), Deployment())
    assert [len(group) for group in groups] == [3] * len({site.settings for site in sites(graph)})
    assert all(len({site.settings for site in group}) == 1 for group in groups)


def test_settings_tell_variants_apart_not_words(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = graph_of(convolution(), nn.ReLU(), convolution(), nn.ReLU())
    groups = alike.groups(graph, sites(graph), Deployment())
    monkeypatch.setattr(Factors, "words", property(lambda _: "reworded"))
    assert alike.groups(graph, sites(graph), Deployment()) == groups
    assert len(groups) > 2


@pytest.mark.parametrize(
    "other",
    [
        [convolution(bias=False), nn.ReLU()],
        [convolution(dilation=2, padding=2), nn.ReLU()],
        [convolution(stride=2), nn.ReLU()],
        [convolution(24), nn.ReLU()],
        [convolution(), nn.ReLU6()],
        [convolution(), nn.BatchNorm2d(16), nn.ReLU()],
        [convolution(), nn.Tanh()],
    ],
)
def test_any_difference_is_one(other: list[nn.Module]) -> None:
    graph = graph_of(convolution(), nn.ReLU(), *other)
    first, second = [site for site in sites(graph) if site.variant == "rank 1"]
    assert alike.signature(graph, first, Deployment()) != alike.signature(graph, second, Deployment())


def test_shapes_of_constants_count() -> None:
    def scaled(shape: tuple[int, ...]) -> Graph:
        return graph_of(nn.Conv2d(16, 16, 3, padding=1), ops.Affine(torch.ones(shape)), nn.ReLU())

    signatures = [
        alike.signature(graph, sites(graph)[0], Deployment()) for graph in map(scaled, [(16, 1, 1), (1, 24, 32)])
    ]
    assert signatures[0] != signatures[1]


def test_what_changes_the_whole_is_like_nothing_else() -> None:
    graph = edit.trace(nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1)), (1, 3, 256, 256), "net")
    found = sites(graph, "input size")
    assert len(found) > 2
    assert all(len(group) == 1 for group in alike.groups(graph, found, Deployment()))


class TwoInputs(nn.Module):
    """The last convolution's part reads only its source; the addition's would read the image as well."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.add = convolution(), convolution(), ops.Add()

    def forward(self, x: Tensor) -> Tensor:
        return self.add(self.second(self.first(x)), x)


def test_a_part_ends_at_its_source() -> None:
    graph = edit.trace(TwoInputs().eval(), (1, 16, 24, 32), "net")
    by_name = {site.target: site for site in sites(graph)}
    assert [node.name for node in alike.part(graph, by_name["second"], Deployment()) or []] == ["second"]
    whole = Site("made up", ("add",), "second", "add", "images", "it also reads the image")
    assert alike.part(graph, whole, Deployment()) is None


def test_one_measurement_serves_all_that_are_alike() -> None:
    graph = graph_of(*itertools.chain.from_iterable((convolution(), nn.ReLU()) for _ in range(3)))
    found = sites(graph)
    priced = alike.price_alike(graph, found, Deployment(), Silent())
    assert set(priced.prices) == set(found)
    for rank in ("rank 1", "rank 2"):
        assert len({price for site, price in priced.prices.items() if site.variant == rank}) == 1


def test_a_reason_serves_all_that_are_alike() -> None:
    graph = graph_of(convolution(), nn.ReLU(), convolution(), nn.ReLU())
    wrong = [
        Site(site.technique, site.layers, site.source, site.target, "images", "", Settings())
        for site in sites(graph)
        if site.variant == "rank 1"
    ]
    priced = alike.price_alike(graph, wrong, Deployment(), Silent())
    assert priced.prices == {}
    assert [refusal.layer for refusal in priced.refusals] == [site.layers[0] for site in wrong]
