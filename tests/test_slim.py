"""The whole path on a network trained for seconds: files out, numbers that agree, budgets kept or said to be missed."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import slimseg
from slimseg.commands import slim_trained
from slimseg.commands.slim_trained import TrainedSlim
from slimseg.errors import BudgetError, DataError, OutputError
from slimseg.graph.graph import Graph
from slimseg.planning.choosing import planner
from slimseg.planning.choosing.budget import Budget
from slimseg.planning.choosing.exact import PlannedEdit
from slimseg.planning.choosing.plan import Plan
from slimseg.planning.running import recover
from slimseg.planning.running.candidate import Candidate
from slimseg.planning.running.deploy import QUANTISATION
from slimseg.planning.running.untrained import Untrained
from slimseg.progress import Bar, Silent
from slimseg.quantisation import qat
from slimseg.results import SlimResult
from slimseg.runtimes.litert import session
from slimseg.techniques import input_size
from slimseg.techniques.separable import Separable
from slimseg.techniques.upsampling import Upsampling
from slimseg.tflite import file

MODULE = import_module("slimseg.commands.slim")  # `slimseg.slim` is the function
SIZE = 32_000  # the plain int8 file has 45 kB: edits are needed
RUN = {
    "model.tflite",
    "model_float.tflite",
    "model.pt2",
    "result.json",
    "report.html",
    "profile_before.json",
    "profile_after.json",
}


@pytest.fixture(autouse=True, scope="module")
def _quick(quick_timing: None) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recover, "MIMIC_STEPS", 8)
        patch.setattr(recover, "DISTIL_STEPS", 8)
        patch.setattr(qat, "STEPS", 6)
        yield


@pytest.fixture(scope="module")
def done(shapes_graph: Graph, shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> SlimResult:
    out = tmp_path_factory.mktemp("slim") / "run"
    return slimseg.slim(
        shapes_graph, images=shapes, out=out, budget=Budget(min_speedup=1.5, max_drop=20.0, max_size_bytes=SIZE)
    )


@pytest.fixture
def few_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quick plan, for tests of what becomes of it."""
    monkeypatch.setattr(planner, "APPROXIMATE", (Upsampling(),))
    monkeypatch.setattr(planner, "REWRITES", ())
    monkeypatch.setattr(planner, "NARROWING_ROUNDS", 1)
    monkeypatch.setattr(input_size, "PERCENTS", (90, 50))  # at the first of them the network is as good


@pytest.fixture
def few_forms(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without training only the original and plain int8."""
    monkeypatch.setattr(Untrained, "_exact", lambda _: ())
    monkeypatch.setattr(Untrained, "_sizes", lambda _: ())


quick_plan = pytest.mark.usefixtures("few_candidates", "few_forms")


class Jobs(Silent):
    """Remembers what took long."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def bar(self, what: str, total: float) -> Bar:
        self.names.append(what)
        return super().bar(what, total)


@quick_plan
def test_training_in_8_bits_where_rounding_is_to_blame(
    shapes_graph: Graph, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slim_trained, "LEGS", 1)
    monkeypatch.setattr(slim_trained, "ROUNDING_COSTS", -100.0)  # it always is
    monkeypatch.setattr(Candidate, "holds", False)  # so that the search goes on
    jobs = Jobs()
    budget = Budget(min_speedup=1.5)
    result = slimseg.slim(shapes_graph, images=shapes, out=tmp_path / "run", budget=budget, progress=jobs)
    assert sum("quantisation-aware" in name for name in jobs.names) == len(qat.PHASES)
    assert file.read(tmp_path / "run" / "model.tflite").inputs[0].dtype == "uint8"
    assert result.after.miou is not None


def images_alone(shapes: Path, folder: Path) -> Path:
    folder.mkdir()
    for path in (shapes / "train" / "images").iterdir():
        shutil.copy(path, folder)
    return folder


@pytest.mark.smoke
def test_a_smaller_and_faster_network_with_proof(done: SlimResult) -> None:
    run = Path(done.run)
    assert {path.name for path in run.iterdir()} >= RUN
    assert not (run / "work").exists()
    assert done.speedup > 1.5
    assert done.budget_met
    assert [check.name for check in done.budget] == ["max_drop", "max_size", "min_speedup"]
    assert done.after.size_bytes == (run / "model.tflite").stat().st_size <= SIZE
    assert done.after.miou is not None
    assert done.baseline.miou is not None
    assert done.after.miou > done.baseline.miou - 20


def test_result_json_has_what_is_promised(done: SlimResult) -> None:
    run = Path(done.run)
    result = json.loads((run / "result.json").read_text())
    for part in ("baseline", "plain_int8", "result"):
        assert {"latency_ms", "size_bytes", "miou", "macs", "params", "end_to_end_ms"} <= set(result[part])
        assert all(result[part][key] > 0 for key in ("latency_ms", "size_bytes", "miou", "macs", "end_to_end_ms"))
    ratio = result["baseline"]["latency_ms"] / result["result"]["latency_ms"]
    assert 0.5 < result["speedup"] / ratio < 2  # of two runs; on a quiet machine within 0.97 and 1.03
    assert result["end_to_end_speedup"] == pytest.approx(
        result["baseline"]["end_to_end_ms"] / result["result"]["end_to_end_ms"]
    )
    assert result["edits"][0]["technique"] == QUANTISATION
    assert len(result["edits"]) > 1
    for edit in result["edits"]:
        assert {"technique", "layers", "predicted_saving_ms", "realised_saving_ms", "reason"} <= set(edit)
    assert sum(trial["chosen"] for trial in result["input_sizes"]) == 1
    chosen = next(trial for trial in result["input_sizes"] if trial["chosen"])
    assert chosen["input_size"] == result["result"]["input_size"]
    assert "Input sizes" in (run / "report.html").read_text()
    saved = sum(edit["realised_saving_ms"] for edit in result["edits"])
    assert 0.5 < saved / (result["baseline"]["latency_ms"] - result["result"]["latency_ms"]) < 2


def test_profiles_and_report(done: SlimResult) -> None:
    run = Path(done.run)
    before, after = (json.loads((run / f"profile_{when}.json").read_text()) for when in ("before", "after"))
    assert {layer["op"] for layer in before["layers"]} >= {"CONV_2D", "TRANSPOSE_CONV"}
    assert after["size_bytes"] == done.after.size_bytes
    report = (run / "report.html").read_text()
    assert "<html" in report
    assert "https://" not in report.replace("https://www.w3.org", "")[:2000]


def test_model_pt2_comes_back_with_its_description(done: SlimResult, shapes_graph: Graph) -> None:
    back = slimseg.load(Path(done.run) / "model.pt2")
    assert back.description == shapes_graph.description
    assert back.input_size == done.after.input_size
    path = Path(done.run) / "model_float.tflite"
    assert file.read_description(path) == shapes_graph.description
    image = np.random.default_rng(0).standard_normal((1, *back.input_size, 3), np.float32)
    with torch.inference_mode():
        expected = back(torch.from_numpy(image).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(session.predict(path, image)[0], expected[0], atol=1e-3)


def test_the_deployed_file_needs_nothing_more(done: SlimResult, shapes: Path) -> None:
    for name, summary in (("model.tflite", done.result), ("original_float.tflite", done.baseline)):
        found = slimseg.evaluate(Path(done.run) / name, images=shapes)
        assert found.miou == pytest.approx(summary.miou, abs=1e-9)
        assert tuple(found.class_iou) == ("ground", "disc", "box")


@quick_plan
def test_a_run_that_was_killed_goes_on(shapes_graph: Graph, shapes: Path, tmp_path: Path, capsys: Any) -> None:
    """Killed after the first leg of training: the second start plans nothing, trains nothing, and ends the run."""
    budget, run = Budget(min_speedup=1.5, max_drop=20.0), tmp_path / "run"

    class Killed(BaseException):
        pass

    def killed(*_: object) -> None:
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainedSlim, "_deployed", killed)
        with pytest.raises(Killed):
            slimseg.slim(shapes_graph, images=shapes, out=run, budget=budget)
    assert not (run / "result.json").exists()
    with pytest.raises(OutputError, match=r"other settings \(seed"):
        slimseg.slim(shapes_graph, images=shapes, out=run, budget=budget, seed=1)
    before = {path.name: path.stat().st_mtime_ns for path in (run / "work").glob("*.safetensors")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slim_trained, "Planner", killed)
        patch.setattr(slim_trained.Recovery, "mimic_blocks", killed)
        patch.setattr(slim_trained.Recovery, "distil_whole", killed)
        patch.setattr(Candidate, "holds", True)  # or another leg would follow, on a machine where this one is too slow
        result = slimseg.slim(shapes_graph, images=shapes, out=run, budget=budget)
    assert before
    assert result.edits
    assert {path.name for path in run.iterdir()} >= RUN
    assert not (run / "work").exists()


def test_a_run_is_never_written_over(done: SlimResult, shapes_graph: Graph, shapes: Path) -> None:
    before = {path: path.read_bytes() for path in Path(done.run).iterdir()}
    with pytest.raises(OutputError, match="not empty"):
        slimseg.slim(shapes_graph, images=shapes, out=done.run)
    assert {path: path.read_bytes() for path in Path(done.run).iterdir()} == before


def test_a_finished_run_gives_its_result_again(done: SlimResult, shapes_graph: Graph, shapes: Path) -> None:
    """The same command after a death at its very end, or given twice: nothing is computed, nothing is touched."""
    before = {path: path.read_bytes() for path in Path(done.run).iterdir()}
    budget = Budget(min_speedup=1.5, max_drop=20.0, max_size_bytes=SIZE)
    assert slimseg.slim(shapes_graph, images=shapes, out=done.run, budget=budget) == done
    assert {path: path.read_bytes() for path in Path(done.run).iterdir()} == before


@quick_plan
def test_images_without_masks(shapes_graph: Graph, shapes: Path, tmp_path: Path) -> None:
    folder = images_alone(shapes, tmp_path / "images")
    result = slimseg.slim(
        shapes_graph, images=folder, out=tmp_path / "run", budget=Budget(min_speedup=2.0, max_drop=20.0)
    )
    assert result.baseline.miou is None
    assert result.after.miou is None
    assert result.baseline.agreement == 100
    assert result.after.agreement is not None
    assert 80 <= result.after.agreement <= 100
    assert result.budget[0].wanted == "at most 20 % of pixels changed"
    assert result.speedup > 2


def test_needs_nothing_changes_no_value(
    shapes_graph: Graph, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trained(*_: object) -> None:
        raise AssertionError("no training was allowed")

    monkeypatch.setattr(slim_trained, "Recovery", trained)
    folder = images_alone(shapes, tmp_path / "images")
    result = slimseg.slim(shapes_graph, images=folder, out=tmp_path / "run", budget=Budget(needs="nothing"))
    assert result.after.agreement == 100
    assert all(edit.needs == "nothing" for edit in result.edits)
    assert result.budget_met


@quick_plan
@pytest.mark.parametrize("head", ["mask", "probabilities"])
def test_the_head_that_was_asked_for(shapes_graph: Graph, shapes: Path, tmp_path: Path, head: Any) -> None:
    budget = Budget(min_speedup=1.5, max_drop=30.0, head=head)
    result = slimseg.slim(shapes_graph, images=shapes, out=tmp_path / "run", budget=budget)
    path = tmp_path / "run" / "model.tflite"
    described = file.read_description(path)
    assert described is not None
    assert described.output_kind == head
    (output,) = file.read(path).outputs
    if head == "mask":
        assert output.dtype.startswith("int")
    else:
        image = np.zeros((1, *result.after.input_size, 3), np.float32)
        np.testing.assert_allclose(session.predict(path, image)[0].sum(-1), 1, atol=0.02)
    assert result.after.miou is not None
    assert result.after.miou > 60
    assert slimseg.evaluate(path, images=shapes).miou == pytest.approx(result.after.miou)


@quick_plan
def test_a_budget_out_of_reach_is_said_to_be_missed(
    shapes_graph: Graph, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slim_trained, "LEGS", 2)
    budget = Budget(min_speedup=10_000.0, max_size_bytes=1000, max_drop=0.0, time_limit_s=30)
    result = slimseg.slim(shapes_graph, images=shapes, out=tmp_path / "run", budget=budget)
    assert not result.budget_met
    assert {check.name: check.met for check in result.budget} | {"max_drop": None} == {
        "max_drop": None,
        "max_size": False,
        "min_speedup": False,
    }
    assert (tmp_path / "run" / "model.tflite").is_file()
    assert_worse_than_none(result)


def assert_worse_than_none(result: SlimResult) -> None:
    """The result is one of the forms that were compared, and accurate: the original is always among them."""
    (chosen,) = (form for form in result.forms if form.chosen)
    assert chosen.size_bytes == result.after.size_bytes
    assert (chosen.miou, chosen.agreement) == (result.after.miou, result.after.agreement)
    assert (chosen.speedup, chosen.budget_met) == (result.speedup, result.budget_met)
    assert any(form.form == "original" and form.drop == 0 for form in result.forms)
    assert chosen.drop <= 0.5  # beyond what these runs allow: nothing


@pytest.mark.usefixtures("few_candidates")
def test_without_time_to_train_the_result_is_the_best_of_what_needs_none(
    shapes_graph: Graph, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user is told before, nothing is planned, and what was measured is not measured again by a second start."""

    class Killed(BaseException):
        pass

    def killed(*_: object) -> None:
        raise Killed

    monkeypatch.setattr(slim_trained, "ENOUGH", math.inf)
    monkeypatch.setattr(slim_trained, "Planner", killed)
    budget, run = Budget(min_speedup=1000.0, max_drop=0.0), tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainedSlim, "_search", killed)
        with pytest.raises(Killed):
            slimseg.slim(shapes_graph, images=shapes, out=run, budget=budget)
    monkeypatch.setattr(Untrained, "_measured", killed)
    result = slimseg.slim(shapes_graph, images=shapes, out=run, budget=budget)
    (note,) = (each for each in result.notes if "Recovering accuracy takes about" in each)
    assert "edits that need it are left out; `time_limit_s`" in note
    assert not any(form.trained for form in result.forms)
    assert result.forms[0].form == "original"
    assert (result.forms[0].speedup, result.forms[0].drop) == (1.0, 0.0)
    assert not result.budget_met
    assert result.verdict.startswith("The budget is not met: Speed-up")
    assert_worse_than_none(result)
    written = json.loads((run / "result.json").read_text())
    assert [form["form"] for form in written["forms"]] == [form.form for form in result.forms]
    assert note in (run / "report.html").read_text().replace("&#39;", "'")
    assert {path.name for path in run.iterdir()} >= RUN


@quick_plan
def test_a_plan_that_was_never_trained_is_no_result_where_it_loses_too_much(
    shapes_graph: Graph, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if planning had used the time: what was planned stays among the forms that were compared, no more."""
    site = Separable().find(shapes_graph).sites[-1]
    plan = Plan(Separable().apply(shapes_graph, site), (PlannedEdit(site, 1.0, 50.0),), ())
    monkeypatch.setattr(TrainedSlim, "_plan", lambda *_: plan)
    monkeypatch.setattr(TrainedSlim, "_has_time_to_recover", lambda *_: True)
    monkeypatch.setattr(TrainedSlim, "_can_train", lambda *_: False)
    result = slimseg.slim(
        shapes_graph, images=shapes, out=tmp_path / "run", budget=Budget(min_speedup=50.0, max_drop=0.0)
    )
    (planned,) = (form for form in result.forms if form.form == "planned, not trained")
    assert not planned.trained
    assert planned.chosen == (planned.drop <= 0)
    assert_worse_than_none(result)


def test_a_head_that_cannot_be_had_is_said_at_once(shapes_graph: Graph, shapes: Path, tmp_path: Path) -> None:
    graph = shapes_graph.copy()
    graph.description = type(graph.description)(output_kind="mask")
    with pytest.raises(BudgetError, match="`head`"):
        slimseg.slim(graph, images=shapes, out=tmp_path / "run", budget=Budget(head="probabilities"))
    assert not (tmp_path / "run").exists()


def test_bad_images_are_found_before_anything_is_written(shapes_graph: Graph, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    with pytest.raises(DataError):
        slimseg.slim(shapes_graph, images=tmp_path / "images", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("entries", "kept"),
    [
        ([], "Nothing of it is kept in run"),
        (["baselines"], "run keeps the baselines:"),
        (["baselines", "untrained"], "run keeps the baselines and the candidates without training:"),
        (["baselines", "untrained", "plan", "mimicked"], "the candidates without training, the plan and the blocks"),
        (["baselines", "untrained", "plan", "mimicked", "distilled"], "the plan and 1 of 1 leg of training"),
    ],
)
def test_ctrl_c_says_what_is_kept(entries: list[str], kept: str) -> None:
    run = SimpleNamespace(
        folder="run", claim=SimpleNamespace(is_finished=False), journal=SimpleNamespace(entries=entries)
    )
    assert kept in MODULE._kept(run, Budget())
