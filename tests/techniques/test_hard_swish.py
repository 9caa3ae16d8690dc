"""Hard-swish stays near GELU and swish, and its factors are folded into the layers beside it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from slimseg.graph import edit, fold
from slimseg.graph.graph import Graph
from slimseg.techniques.hard_swish import HardSwish


def graph_of(*layers: nn.Module) -> Graph:
    torch.manual_seed(0)
    return edit.trace(nn.Sequential(*layers).eval(), (1, 8, 6, 5))


def edited(graph: Graph) -> Graph:
    (site,) = HardSwish().find(graph).sites
    return HardSwish().apply(graph, site)


@pytest.mark.parametrize(("kind", "difference"), [(nn.GELU, 0.07), (nn.SiLU, 0.143)])
def test_values_stay_near(kind: type[nn.Module], difference: float) -> None:
    graph = graph_of(nn.Conv2d(8, 8, 1), kind(), nn.Conv2d(8, 8, 3, padding=1))
    result = edited(graph)
    before, after = edit.ending_at(graph, "layer_1"), edit.ending_at(result, "layer_1")
    x = 5 * torch.randn(1, 8, 6, 5)
    with torch.no_grad():
        assert (before(x) - after(x)).abs().max() < difference
    assert len(list(fold.fold_scales(result).layers())) == 3


def test_factors_that_would_take_time_are_left_out() -> None:
    for layers in ((nn.MaxPool2d(2), nn.GELU(), nn.Conv2d(8, 8, 1)), (nn.Conv2d(8, 8, 1), nn.GELU(), nn.MaxPool2d(2))):
        assert len(list(fold.fold_scales(edited(graph_of(*layers))).layers())) == 3


def test_an_activation_that_gives_the_output_stays() -> None:
    assert not HardSwish().find(graph_of(nn.Conv2d(8, 8, 1), nn.GELU())).sites
