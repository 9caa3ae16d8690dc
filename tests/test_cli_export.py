"""`slimseg export` and `--runtime` at the command line: results, and mistakes in one line."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from command_line import Run, model_file
from torch import nn

from slimseg.errors import OutputError
from slimseg.exporting import heads
from slimseg.frontends import load
from slimseg.graph.graph import Graph
from slimseg.runtimes.ncnn import package


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, quick_timing: None) -> None:
    monkeypatch.setattr(heads, "ROUNDS", 1)


@pytest.fixture(scope="module")
def pt2(shapes_graph: Graph, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_file(shapes_graph, tmp_path_factory.mktemp("models"), ".pt2")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network with nearly nothing to price."""
    module = nn.Sequential(nn.Conv2d(3, 8, 3, 4, 1), nn.Upsample(scale_factor=4), nn.Conv2d(8, 3, 1))
    path = tmp_path_factory.mktemp("models") / "small.pt2"
    load(module, (64, 80)).save(path)
    return path


def test_an_export(run: Run, pt2: Path, tmp_path: Path) -> None:
    code, out, _ = run("export", pt2, "--to", "tflite", "--out", tmp_path / "app")
    assert code == 0
    assert "model.tflite" in out
    assert "model_card.md" in out
    assert (tmp_path / "app" / "model_card.md").is_file()


def test_json(run: Run, pt2: Path, shapes: Path, tmp_path: Path) -> None:
    code, out, _ = run(
        "export", pt2, "--to", "tflite", "--data", shapes, "--images", 2, "--out", tmp_path / "app", "--json"
    )
    assert code == 0
    (artefact,) = json.loads(out)["card"]["artefacts"]
    assert artefact["files"] == ["model.tflite"]
    assert artefact["disagreement"] < 0.5


def test_what_failed_is_exit_code_1(run: Run, pt2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "coremltools", None)
    code, out, _ = run("export", pt2, "--to", "coreml,tflite", "--head", "logits", "--out", tmp_path / "app")
    assert code == 1
    assert "slimseg[coreml]" in " ".join(out.split())
    assert (tmp_path / "app" / "model.tflite").is_file()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--to", "tensorrt"], "no such target"),
        (["--to", "tflite:float8"], "no form"),
        (["--to", ""], "names no target"),
        (["--head", "labels"], "must be one of"),
        (["--coreml-sizes", "256"], "HEIGHTxWIDTH"),
        (["--data", "nowhere"], "is not a folder"),
    ],
)
def test_mistakes_are_one_line(run: Run, pt2: Path, tmp_path: Path, options: list[str], told: str) -> None:
    code, out, err = run("export", pt2, "--out", tmp_path / "app", *options)
    assert (code, out) == (2, "")
    assert told in err
    assert err.count("\n") == 1
    assert not (tmp_path / "app").exists()


def test_places_that_are_not_exports(run: Run, pt2: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years")
    code, _, err = run("export", pt2, "--to", "tflite", "--out", tmp_path)
    assert code == 2
    assert "not from an export" in err
    code, _, err = run("export", tmp_path, "--out", tmp_path / "app")
    assert code == 2
    assert "finished run" in err


@pytest.mark.parametrize("command", ["profile", "diagnose", "evaluate", "slim"])
def test_an_unknown_runtime(run: Run, pt2: Path, tmp_path: Path, command: str) -> None:
    options = {"evaluate": ("--data", tmp_path), "slim": ("--needs", "nothing", "--out", tmp_path / "run")}
    code, out, err = run(command, pt2, "--runtime", "coreml", *options.get(command, ()))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "litert, ncnn" in err
    assert not (tmp_path / "run").exists()


def test_ncnn_that_is_not_installed(run: Run, pt2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package, "available", lambda: False)
    code, _, err = run("profile", pt2, "--runtime", "ncnn")
    assert code == 2
    assert "slimseg[ncnn]" in err


def test_slim_exports_at_its_end(run: Run, small: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    code, _, _ = run("slim", small, "--needs", "nothing", "--out", out, "--to", "tflite")
    assert code == 0
    assert (out / "export" / "model_card.md").is_file()
    assert (out / "model.tflite").is_file()


def test_slim_and_its_export_are_one_json(
    run: Run, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ("slim", small, "--needs", "nothing", "--to", "tflite", "--json")
    code, out, _ = run(*given, "--out", tmp_path / "run")
    told = json.loads(out)
    assert code == 0
    assert told["speedup"] > 0
    assert told["exported"]["card"]["artefacts"][0]["target"] == "tflite"

    def failing(*_: Any, **__: Any) -> None:
        raise OutputError("the disk is full")

    monkeypatch.setattr(import_module("slimseg.commands.export"), "export", failing)
    code, out, err = run(*given, "--out", tmp_path / "other")
    assert (code, json.loads(out)["exported"]) == (2, None)
    assert "the disk is full" in err


def test_a_wrong_target_is_told_before_the_work(run: Run, pt2: Path, tmp_path: Path) -> None:
    code, _, err = run("slim", pt2, "--needs", "nothing", "--out", tmp_path / "run", "--to", "tensorrt")
    assert code == 2
    assert "no such target" in err
    assert not (tmp_path / "run").exists()


def test_a_missed_budget_is_exit_code_3_and_not_exported(run: Run, small: Path, shapes: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    slim = ("slim", small, "--data", shapes, "--out", out, "--needs", "nothing", "--max-size", "1kB", "--to", "tflite")
    ran = run(*slim, "--json")
    assert ran.code == 3
    told = json.loads(ran.out)
    assert (told["budget_met"], told["exported"]) == (False, None)
    assert told["verdict"].startswith("The budget is not met: Size")
    assert "--anyway" in ran.err
    assert not (out / "export").exists()
    refused = run("export", out, "--to", "tflite", "--out", tmp_path / "app")
    assert refused.code == 2
    assert "did not meet its budget" in refused.err
    assert not (tmp_path / "app").exists()
    assert run("export", out, "--to", "tflite", "--out", tmp_path / "app", "--anyway").code == 0


def test_a_missed_budget_is_exported_anyway(run: Run, small: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    ran = run("slim", small, "--out", out, "--needs", "nothing", "--max-size", "1kB", "--to", "tflite", "--anyway")
    assert ran.code == 3
    assert "The budget is not met" in " ".join(ran.out.split())
    assert "**The budget is not met" in (out / "export" / "model_card.md").read_text()
