"""Times of operators find the nodes that do the work."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from slimseg.frontends import load
from slimseg.graph import edit, ops
from slimseg.graph.graph import Graph
from slimseg.pace import at_latency
from slimseg.planning.pricing.layer_times import layer_times, part_ms
from slimseg.runtimes.litert.profiling import profiler
from slimseg.runtimes.litert.writing import writer


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.relu = nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU()
        self.swish = nn.SiLU()  # two operators in the file
        self.up, self.crossing = nn.ConvTranspose2d(16, 8, 4, 2, 1), nn.ReLU()
        self.add = ops.Add()

    def forward(self, x: Tensor) -> Tensor:
        y = self.up(self.swish(self.relu(self.norm(self.conv(x)))))
        return self.add(self.crossing(y), y)  # the activation cannot go into its layer: something else reads that


@pytest.fixture(scope="module")
def graph() -> Graph:
    torch.manual_seed(0)
    return edit.trace(Net().eval(), (1, 3, 128, 160), "net")


@pytest.fixture(scope="module")
def path(graph: Graph, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("times") / "net.tflite"
    writer.write(graph, path)
    return path


def test_every_operator_counts_once_for_the_node_that_works(graph: Graph, path: Path) -> None:
    profile = profiler.profile(path, runs=5)
    times = layer_times(graph, profile)
    assert set(times) == {"conv", "swish", "up", "crossing", "add"}
    assert sum(times.values()) == pytest.approx(sum(layer.latency_ms for layer in profile.layers))


def test_an_opened_file_is_joined_by_its_own_names(path: Path) -> None:
    opened = load(path)
    profile = profiler.profile(path, runs=5)
    times = layer_times(opened, profile)
    assert sum(times.values()) == pytest.approx(sum(layer.latency_ms for layer in profile.layers))
    convolution = next(node for node in opened.layers() if opened.layer_as(node, nn.Conv2d))
    assert times[convolution.name] > 0


def test_a_part_that_the_profile_does_not_know_has_no_time() -> None:
    assert part_ms({"a": 1.0, "b": 2.0}, ["a", "b", "folded"]) == 3.0
    assert part_ms({"a": 1.0}, ["b"]) is None


def test_a_profile_at_another_latency_keeps_its_proportions(path: Path) -> None:
    profile = profiler.profile(path, runs=5)
    other = at_latency(profile, profile.latency_ms / 2)
    assert other.latency_ms == profile.latency_ms / 2
    for before, after in zip(profile.layers, other.layers, strict=True):
        assert after.latency_ms == pytest.approx(before.latency_ms / 2)
        assert after.share == before.share
