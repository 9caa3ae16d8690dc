"""ShuffleNetV2's guidelines on networks that break one of them each, with made-up times."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from slimseg.deployment import Deployment
from slimseg.graph import edit, ops
from slimseg.graph.graph import Graph
from slimseg.planning.pricing.guidelines import guidelines
from slimseg.planning.pricing.sides import odd_sides
from slimseg.results import Finding


def graph_of(net: nn.Module, size: tuple[int, int] = (32, 48)) -> Graph:
    torch.manual_seed(0)
    return edit.trace(net.eval(), (1, 16, *size), "net")


def found(graph: Graph, **times: float) -> dict[str, Finding]:
    every = {node.name: 1.0 for node in graph.layers()} | times
    return {each.technique[:2]: each for each in guidelines(graph, every, sum(every.values()))}


def test_unequal_channels() -> None:
    graph = graph_of(nn.Sequential(nn.Conv2d(16, 256, 1), nn.Conv2d(256, 256, 1), nn.Conv2d(256, 64, 1)))
    finding = found(graph)["G1"]
    assert finding.layers == ("layer_0", "layer_2")
    pixels = 32 * 48
    wide = (pixels * 272 + 4096) / (2 * pixels * 64 + 4096)
    narrow = (pixels * 320 + 16384) / (2 * pixels * 128 + 16384)
    assert finding.after_ms == pytest.approx(1 / wide + 1 / narrow)
    assert finding.before_ms == pytest.approx(2.0)


def test_groups_against_the_rate_of_full_convolutions() -> None:
    net = nn.Sequential(
        nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1, groups=4),
        nn.Conv2d(16, 16, 3, padding=1, groups=16),
    )  # fmt: skip
    finding = found(graph_of(net))["G2"]
    assert finding.layers == ("layer_1",)  # depthwise ones have kernels of their own
    assert (finding.before_ms, finding.after_ms) == (pytest.approx(1.0), pytest.approx(0.25))


class Inception(nn.Module):
    def __init__(self, branches: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(16, 16, 3, padding=1)
        self.branches = nn.ModuleList(nn.Sequential(nn.Conv2d(16, 8, 1), nn.ReLU()) for _ in range(branches))
        self.join = ops.Concat()

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.join(*(branch(x) for branch in self.branches))


def test_fragments_are_three_branches_or_more() -> None:
    assert set(found(graph_of(Inception(3)))["G3"].layers) == {
        f"branches_{number}_{layer}" for number in range(3) for layer in range(2)
    }
    assert "G3" not in found(graph_of(Inception(2)))


def test_element_wise_work_is_what_was_timed_alone() -> None:
    graph = graph_of(nn.Sequential(nn.Conv2d(16, 16, 1), nn.ReLU(), nn.Conv2d(16, 16, 1), nn.Hardswish()))
    finding = found(graph, layer_1=0.0, layer_3=3.0)["G4"]  # the first is fused
    assert (finding.layers, finding.after_ms) == (("layer_3",), 0.0)
    assert finding.share == pytest.approx(3 / 5)
    assert finding.basis == "profile"


def test_what_takes_no_time_is_not_named() -> None:
    graph = graph_of(nn.Sequential(nn.Conv2d(16, 16, 1), nn.Hardswish()))
    assert found(graph, layer_0=1000.0) == {}


def test_odd_sides_are_measured_per_pixel() -> None:
    net = nn.Sequential(nn.Conv2d(16, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1))
    graph = graph_of(net, (65, 65))
    times = {"layer_0": 2.0, "layer_2": 2.0}
    (finding,) = odd_sides(graph, times, 5.0, Deployment())
    assert finding.layers == ("layer_0", "layer_2")
    assert finding.basis == "what-if"
    assert "layer_0 at 33x33" in finding.reason
    assert 0.3 < finding.after_ms / finding.before_ms < 3  # time per pixel, not time
    assert odd_sides(graph, times, 1000.0, Deployment()) == ()
    assert odd_sides(graph_of(net, (64, 64)), times, 5.0, Deployment()) == ()
