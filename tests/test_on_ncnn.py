"""Every command that measures, on ncnn in place of LiteRT: its own times, files and accuracy."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

import slimseg
from slimseg.errors import ModelError, UserError
from slimseg.graph.description import OutputKind
from slimseg.graph.graph import Graph
from slimseg.planning.choosing import planner
from slimseg.planning.choosing.budget import Budget
from slimseg.planning.running import recover
from slimseg.planning.running.untrained import Untrained
from slimseg.results import SlimResult
from slimseg.runtimes import registry
from slimseg.runtimes.ncnn import package
from slimseg.runtimes.ncnn.runtime import NCNN
from slimseg.techniques import input_size
from slimseg.techniques.upsampling import Upsampling

pytestmark = pytest.mark.skipif(not package.available(), reason=f"ncnn is not installed: {package.INSTALL}")


@pytest.fixture(autouse=True, scope="module")
def _quick(quick_timing: None) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recover, "MIMIC_STEPS", 4)
        patch.setattr(recover, "DISTIL_STEPS", 4)
        patch.setattr(planner, "APPROXIMATE", (Upsampling(),))
        patch.setattr(planner, "REWRITES", ())
        patch.setattr(planner, "NARROWING_ROUNDS", 1)
        patch.setattr(input_size, "PERCENTS", (50,))
        patch.setattr(Untrained, "_exact", lambda _: ())
        patch.setattr(Untrained, "_sizes", lambda _: ())
        yield


@pytest.fixture(scope="module")
def slimmed(shapes_graph: Graph, shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> SlimResult:
    out = tmp_path_factory.mktemp("ncnn") / "run"
    return slimseg.slim(
        shapes_graph, images=shapes, out=out, budget=Budget(min_speedup=1.3, max_drop=60.0, runtime="ncnn")
    )


def test_a_run_leaves_ncnns_files(slimmed: SlimResult) -> None:
    run = Path(slimmed.run)
    assert {"model.param", "model.bin", "model.pt2", "result.json", "report.html"} <= {p.name for p in run.iterdir()}
    assert not (run / "model.tflite").exists()
    assert slimmed.after.file == "model.param"
    assert slimmed.after.size_bytes == sum((run / name).stat().st_size for name in ("model.param", "model.bin"))
    assert slimmed.plain_int8 is None
    assert slimmed.speedup > 1
    assert "ncnn" in slimmed.host
    assert slimmed.runtime == "ncnn"
    assert json.loads((run / "profile_after.json").read_text())["runtime"].startswith("ncnn")


def test_what_was_deployed_is_what_was_measured(slimmed: SlimResult, shapes: Path) -> None:
    found = slimseg.evaluate(Path(slimmed.run) / "model.param", images=shapes)
    assert found.miou == pytest.approx(slimmed.after.miou)


def test_edits_add_up(slimmed: SlimResult) -> None:
    assert slimmed.edits
    saved = sum(each.realised_saving_ms for each in slimmed.edits)
    assert 0.3 < saved / (slimmed.baseline.latency_ms - slimmed.after.latency_ms) < 3  # of two runs


def test_a_run_is_exported(slimmed: SlimResult, tmp_path: Path) -> None:
    result = slimseg.export(slimmed.run, out=tmp_path / "app", to="ncnn", head="logits")
    assert not result.failed


def roundabout() -> Graph:
    """A 1x1 convolution to many channels and back, with nothing between: one does the same in a fraction."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 96, 1), nn.Conv2d(96, 16, 1), nn.ReLU(), nn.Conv2d(16, 3, 1)
    )
    return slimseg.load(model.eval(), (128, 160), mean=127.0, std=128.0, name="roundabout")


@pytest.mark.parametrize("head", [None, "mask"])
def test_exact_edits_alone(head: OutputKind | None, tmp_path: Path) -> None:
    budget = Budget(needs="nothing", head=head, runtime="ncnn")
    result = slimseg.slim(roundabout(), images=None, out=tmp_path / "run", budget=budget)
    assert {"model.param", "model.bin", "model.pt2"} <= {path.name for path in (tmp_path / "run").iterdir()}
    assert result.runtime == "ncnn"
    assert any(each.technique == "merged linear layers" for each in result.edits)
    assert result.speedup > 1.3
    assert result.max_difference is not None
    assert result.max_difference < 1e-5  # rounding to 16 bits alone would be 1e-4 and more


def test_profile_of_a_network_and_of_its_file(shapes_graph: Graph, tmp_path: Path) -> None:
    path = tmp_path / "model.param"
    NCNN.write(shapes_graph, path)
    for found in (slimseg.profile(shapes_graph, runs=3, runtime="ncnn"), slimseg.profile(path, runs=3)):
        assert found.runtime.startswith("ncnn")
        assert len(found.layers) > 5


def test_diagnosis_differs_from_that_of_litert(shapes_graph: Graph) -> None:
    found = slimseg.diagnose(shapes_graph, runtime="ncnn", time_limit_s=600)
    assert (found.runtime, found.precision) == ("ncnn", "float16")
    assert any(each.technique.startswith("transposed convolution") for each in found.findings)


def test_evaluation_of_a_network(shapes_graph: Graph, shapes: Path) -> None:
    own, other = (slimseg.evaluate(shapes_graph, images=shapes, runtime=name) for name in ("litert", "ncnn"))
    assert own.miou == pytest.approx(other.miou, abs=0.2)


def test_runtimes_that_there_are_not(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="must be one of litert, ncnn"):
        registry.named("coreml")
    with pytest.raises(ModelError, match="is not a file that a runtime can run"):
        registry.of(tmp_path / "model.keras")
