"""What is compared with, and which precision is deployed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from torch import nn

from slimseg import load
from slimseg.graph.graph import Graph, Weights
from slimseg.planning.choosing.budget import Budget
from slimseg.planning.running import baselines, run_folder
from slimseg.planning.running.baselines import Baselines, deployed_precision
from slimseg.progress import Silent
from slimseg.runtimes.litert.quantising import quantizer
from slimseg.runtimes.litert.runtime import LITERT
from slimseg.tflite import file
from slimseg.training.metrics import Accuracy

SIZE = (32, 40)
IMAGES = [np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)]


@pytest.mark.parametrize(
    ("budget", "gain", "precision"),
    [
        (Budget(), 3.0, "int8"),
        (Budget(), 0.5, "float32"),
        (Budget(max_size_bytes=500_000), 0.5, "int8"),
        (Budget(max_size_bytes=2_000_000), 0.5, "float32"),
        (Budget(needs="nothing"), 3.0, "float32"),
    ],
)
def test_int8_is_deployed_where_it_is_faster_or_nothing_else_is_small_enough(budget, gain, precision):
    assert deployed_precision(budget, gain, float_bytes=1_000_000) == precision


@pytest.fixture
def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1), nn.ReLU(), nn.Conv2d(16, 64, 3, 1, 1), nn.Conv2d(64, 2, 1))


def measured(graph: Graph, folder: Path, budget: Budget) -> Baselines:
    """The baselines of a run, every file of the same accuracy."""
    with run_folder.opened(folder / "run", graph, {}) as run:
        alike = Accuracy(None, 100.0)
        return baselines.measured(graph, budget, run.folder, IMAGES, lambda _: alike, run.journal, Silent())


@pytest.mark.usefixtures("quick_timing")
@pytest.mark.parametrize("weights", ["float32", "float16"])
def test_the_users_own_file_is_the_baseline(network: nn.Module, tmp_path: Path, weights: Weights) -> None:
    own, graph = tmp_path / "own.tflite", load(network, SIZE)
    graph.weights = weights
    LITERT.write(graph, own)
    small = measured(load(own), tmp_path, Budget(max_size_bytes=2_000))
    assert small.float32.path == own
    assert small.int8 is not None
    assert (small.deployment.precision, file.read(small.start).weights) == ("int8", "int8")
    floats = measured(load(own), tmp_path / "exact", Budget(needs="nothing"))
    assert (floats.float32.path, floats.deployment.precision) == (own, "float32")
    assert floats.start != own
    assert file.read(floats.start).weights == weights


@pytest.mark.usefixtures("quick_timing")
def test_an_int8_file_stays_int8_whatever_is_faster(network: nn.Module, tmp_path: Path) -> None:
    wide, own = tmp_path / "wide.tflite", tmp_path / "own.tflite"
    LITERT.write(load(network, SIZE), wide)
    quantizer.quantize_int8(wide, own, [np.random.default_rng(0).random((1, *SIZE, 3), np.float32)])
    found = measured(load(own), tmp_path, Budget())
    assert (found.float32.path, found.int8, found.deployment.precision, found.refusals) == (own, None, "int8", ())


@pytest.mark.usefixtures("quick_timing")
def test_another_input_size_is_not_the_users_file(network: nn.Module, tmp_path: Path) -> None:
    own = tmp_path / "own.tflite"
    LITERT.write(load(network, SIZE), own)
    found = measured(load(own, (24, 40)), tmp_path, Budget())
    assert found.float32.path == tmp_path / "run" / "original_float.tflite"
