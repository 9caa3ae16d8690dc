"""Residual branches that are left out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from slimseg.deployment import Deployment
from slimseg.errors import Unsupported
from slimseg.graph import edit, ops
from slimseg.graph.graph import Graph
from slimseg.planning.pricing import whatif
from slimseg.progress import Silent
from slimseg.techniques import Site
from slimseg.techniques.shortcut import Shortcut


class Residual(nn.Module):
    """Two residual blocks, a sum of two different sources, and a branch that is read outside."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.first = nn.Sequential(nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 8, 1))
        self.sum1 = ops.Add()
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.sum2 = ops.Add()
        self.left, self.right = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
        self.sum3 = ops.Add()
        self.read = nn.Conv2d(8, 8, 1)
        self.sum4 = ops.Add()
        self.concat = ops.Concat(1)
        self.classify = nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = self.sum1(x, self.first(x))
        x = self.sum2(self.second(x), x)  # the branch may stand on either side
        x = self.sum3(self.left(x), self.right(x))
        read = self.read(x)
        return self.classify(self.concat(self.sum4(x, read), read))  # type: ignore[no-any-return]


@pytest.fixture
def graph() -> Graph:
    torch.manual_seed(0)
    return edit.trace(Residual(), (1, 3, 32, 32), "residual")


def site(graph: Graph, target: str) -> Site:
    return next(each for each in Shortcut().find(graph).sites if each.target == target)


def test_residual_sums_are_found_and_no_others(graph: Graph) -> None:
    found = Shortcut().find(graph)
    assert {(each.source, each.target) for each in found.sites} == {("stem", "sum1"), ("sum1", "sum2")}
    assert [each.layer for each in found.refusals] == ["sum4"]
    assert "read elsewhere" in found.refusals[0].reason
    assert site(graph, "sum1").layers == ("first_0", "first_1", "first_2", "sum1")


@pytest.mark.parametrize("target", ["sum1", "sum2"])
def test_what_is_left_is_the_network_with_a_branch_of_zeros(graph: Graph, target: str) -> None:
    edited = Shortcut().apply(graph, site(graph, target))
    silent = graph.copy()
    last = silent.module.get_submodule("first_2" if target == "sum1" else "second")
    nn.init.zeros_(last.weight)  # type: ignore[arg-type]
    nn.init.zeros_(last.bias)  # type: ignore[arg-type]
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(edited(x), silent(x))
    assert target not in {node.name for node in edited.layers()}


def test_both_branches_can_go_one_after_another(graph: Graph) -> None:
    edited = Shortcut().apply(graph, site(graph, "sum1"))
    edited = Shortcut().apply(edited, site(edited, "sum2"))
    assert edited(torch.zeros(1, 3, 32, 32)).shape == (1, 4, 16, 16)
    assert {node.name for node in edited.layers()} == {
        "stem", "left", "right", "sum3", "read", "sum4", "concat", "classify",
    }  # fmt: skip


def test_a_site_of_another_graph_is_refused(graph: Graph) -> None:
    first = site(graph, "sum1")
    edited = Shortcut().apply(graph, site(graph, "sum2"))
    Shortcut().apply(edited, first)
    with pytest.raises(Unsupported, match="sum3"):
        Shortcut().apply(graph, Site(first.technique, first.layers, "stem", "sum3", "images", "", whole=True))


def test_its_price_is_that_of_the_whole(graph: Graph, quick_timing: None) -> None:
    large = edit.at_input_size(graph, (256, 256))
    priced = whatif.price(large, [site(large, "sum1")], Deployment(), Silent())
    (price,) = priced.prices.values()
    assert price.saving_ms > 0
