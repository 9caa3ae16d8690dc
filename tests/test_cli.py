"""The command line as a user meets it: help with examples, JSON that parses, and every error in one line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from command_line import Ran, Run, model_file
from PIL import Image
from torch import nn

from slimseg.errors import RuntimeFailure, Unsupported
from slimseg.frontends import load
from slimseg.graph.graph import Graph
from slimseg.runtimes.litert.writing import writer
from slimseg.tflite import file

COMMANDS = ("profile", "diagnose", "slim", "quantize", "export", "evaluate", "demo")
# The command line in a process whose times are taken in the fewest runs.
QUICKLY = """
import hurry
from slimseg.cli import main
from slimseg.commands import slim_exact
from slimseg.planning.pricing import steady
from slimseg.runtimes import child
child.Child._running = hurry.hurrying
steady.FEWEST_LOADS = 2
slim_exact.SECONDS = slim_exact.WRITING_SECONDS = 0.1
main()
"""


@pytest.fixture(scope="module")
def pt2(shapes_graph: Graph, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_file(shapes_graph, tmp_path_factory.mktemp("models"), ".pt2")


@pytest.fixture(scope="module")
def tflite(shapes_graph: Graph, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_file(shapes_graph, tmp_path_factory.mktemp("models"), ".tflite")


@pytest.fixture
def folder(shapes: Path, tmp_path: Path) -> Path:
    """A copy of the drawn shapes that may be spoilt."""
    return Path(shutil.copytree(shapes, tmp_path / "data"))


def one_line(ran: Ran, *words: str) -> None:
    assert ran.code == 2, ran
    assert ran.out == ""
    assert ran.err.startswith("error: ")
    assert ran.err.count("\n") == 1, ran.err
    for word in words:
        assert word in ran.err


# What works


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(run: Run, command: str) -> None:
    ran = run(command, "--help")
    assert ran.code == 0
    assert f"Example:  slimseg {command}" in ran.out


def test_without_a_command_there_is_help(run: Run) -> None:
    ran = run()
    assert ran.code == 0
    assert all(command in ran.out for command in COMMANDS)


def test_profile(run: Run, tflite: Path) -> None:
    ran = run("profile", tflite, "--runs", 3, "--json")
    assert (ran.code, ran.err) == (0, "")
    assert json.loads(ran.out)["layers"][-1]["op"] == "CONV_2D"
    table = run("profile", tflite, "--runs", 3, "--top", 2)
    assert table.code == 0
    assert "Layer" in table.out


def test_profile_files(run: Run, tflite: Path, tmp_path: Path) -> None:
    layers, trace = tmp_path / "layers.csv", tmp_path / "trace.json"
    ran = run("profile", tflite, "--runs", 3, "--csv", layers, "--trace", trace, "--statistics")
    assert ran.code == 0
    assert "profiled run" in ran.out
    assert layers.read_text().startswith("index,name,op,delegate,kernel")
    assert json.loads(trace.read_text())["traceEvents"][-1]["ph"] == "X"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["layers.csv", "trace.json"]
    one_line(run("profile", tflite, "--runs", 3, "--csv", tmp_path / "none" / "layers.csv"), "layers.csv")


def test_diagnose(run: Run, pt2: Path, quick_timing: None) -> None:
    ran = run("diagnose", pt2, "--json")
    assert ran.code == 0
    keys = {"technique", "layers", "needs", "before_ms", "after_ms", "saving_ms", "share", "reason"}
    assert set(json.loads(ran.out)["findings"][0]) >= keys
    assert "outputs" not in ran.err
    assert json.loads(ran.out)["source_check"].startswith("outputs equal PyTorch's within")


def test_diagnose_a_file_that_can_only_be_timed(run: Run, tflite: Path, tmp_path: Path) -> None:
    model = file.parse(tflite.read_bytes(), tflite)
    (joins,) = [entry for entry in model.operatorCodes if entry.builtinCode == schema.BuiltinOperator.CONCATENATION]
    joins.builtinCode = joins.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
    joins.customCode = b"SomethingElse"
    path = tmp_path / "unknown.tflite"
    path.write_bytes(file.pack(model))
    ran = run("diagnose", path)
    assert ran.code != 0  # neither the vocabulary nor the runtime knows it
    assert ran.err.count("\n") == 1
    assert "SomethingElse" in ran.err


def test_evaluate(run: Run, tflite: Path, pt2: Path, shapes: Path) -> None:
    found = [json.loads(run("evaluate", model, "--data", shapes, "--json").out) for model in (tflite, pt2)]
    assert found[0]["miou"] == pytest.approx(found[1]["miou"], abs=0.01)
    assert found[0]["miou"] > 90


def test_slim_in_a_process_of_its_own(shapes: Path, tmp_path: Path) -> None:
    path = tmp_path / "small.pt2"
    load(nn.Sequential(nn.Conv2d(3, 8, 3, 4, 1), nn.ConvTranspose2d(8, 3, 4, 4)), (64, 80)).save(path)
    options = ["--data", str(shapes), "--out", str(tmp_path / "run"), "--needs", "nothing", "--json"]
    command = [sys.executable, "-c", QUICKLY, "slim", str(path), *options]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads((tmp_path / "run" / "result.json").read_text())
    assert "Exact edits" in done.stderr  # progress
    assert "Warning" not in done.stderr


def test_a_missed_budget_is_a_result(run: Run, pt2: Path, shapes: Path, tmp_path: Path, quick_timing: None) -> None:
    ran = run("slim", pt2, "--data", shapes, "--out", tmp_path / "run", "--max-size", "2kB", "--needs", "nothing")
    assert ran.code == 3
    assert "Budget not met" in ran.out
    assert "at most 0.002 MB" in ran.out
    assert (tmp_path / "run" / "model.tflite").is_file()


# What the user gave cannot be used


@pytest.mark.parametrize("command", ["profile", "diagnose", "slim", "evaluate"])
@pytest.mark.parametrize("name", ["none.tflite", "none.pt2", "none.py:network", "none"])
def test_a_missing_file(run: Run, shapes: Path, tmp_path: Path, command: str, name: str) -> None:
    more = {"slim": ["--data", shapes, "--out", tmp_path / "run"], "evaluate": ["--data", shapes]}.get(command, [])
    one_line(run(command, tmp_path / name, "--input-size", "64x64", *more), "none")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", ["profile", "evaluate"])
@pytest.mark.parametrize("content", [b"hello, world\n", b"", b"\0\0\0\0TFL3 and then nothing"])
def test_no_tflite(run: Run, shapes: Path, tmp_path: Path, command: str, content: bytes) -> None:
    path = tmp_path / "text.tflite"
    path.write_bytes(content)
    one_line(run(command, path, *(["--data", shapes] if command == "evaluate" else [])), "text.tflite")
    assert path.read_bytes() == content


def test_a_truncated_tflite(run: Run, tflite: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.tflite"
    path.write_bytes(tflite.read_bytes()[:2000])
    one_line(run("profile", path), "cut.tflite")


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_truncated_pt2(run: Run, pt2: Path, shapes: Path, tmp_path: Path, share: float) -> None:
    path = tmp_path / "cut.pt2"
    path.write_bytes(pt2.read_bytes()[: int(share * pt2.stat().st_size)])
    one_line(run("slim", path, "--data", shapes, "--out", tmp_path / "run"), "cut.pt2")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_mask_with_a_class_that_is_none(run: Run, pt2: Path, folder: Path, tmp_path: Path, split: str) -> None:
    path = sorted((folder / split / "masks").iterdir())[-1]
    mask = np.array(Image.open(path))
    mask[5, 5] = 200
    Image.fromarray(mask).save(path)
    ran = run("slim", pt2, "--data", folder, "--out", tmp_path / "run")
    one_line(ran, path.name, "200", "3 classes")
    assert not (tmp_path / "run").exists()
    one_line(run("evaluate", pt2, "--data", folder, "--split", split), path.name, "200")


@pytest.mark.parametrize("split", ["train", "val"])
def test_an_image_that_is_none(run: Run, pt2: Path, folder: Path, tmp_path: Path, split: str) -> None:
    path = sorted((folder / split / "images").iterdir())[0]
    path.write_text("no image")
    one_line(run("slim", pt2, "--data", folder, "--out", tmp_path / "run"), path.name)
    assert path.read_text() == "no image"
    assert not (tmp_path / "run").exists()


def test_an_image_that_is_none_without_masks(run: Run, pt2: Path, folder: Path, tmp_path: Path) -> None:
    images = folder / "train" / "images"
    sorted(images.iterdir())[-1].write_text("no image")
    one_line(run("slim", pt2, "--data", images, "--out", tmp_path / "run"), "not an image")
    assert not (tmp_path / "run").exists()


def test_folders_that_cannot_be_used(run: Run, pt2: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "half" / "train").mkdir(parents=True)
    (tmp_path / "file").write_text("")
    for name in ("empty", "half", "file", "none"):
        one_line(run("slim", pt2, "--data", tmp_path / name, "--out", tmp_path / "run"), name)
        one_line(run("evaluate", pt2, "--data", tmp_path / name), name)
    assert not (tmp_path / "run").exists()


def test_no_accuracy_without_masks(run: Run, pt2: Path, shapes: Path) -> None:
    one_line(run("evaluate", pt2, "--data", shapes / "val" / "images"), "has no masks")
    one_line(run("evaluate", pt2, "--data", shapes, "--split", "test"), "test")


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--needs", "nothing", "--min-speedup", "16"], "contradicts"),
        (["--max-size", "10"], "--max-size"),
        (["--max-size", "big"], "--max-size"),
        (["--min-speedup", "0.1"], "--min-speedup"),
        (["--max-drop", "-1"], "--max-drop"),
        (["--max-drop", "nan"], "--max-drop"),
        (["--time-limit", "1s"], "--time-limit"),
        (["--time-limit", "later"], "--time-limit"),
        (["--needs", "money"], "--needs"),
        (["--head", "tail"], "--head"),
        (["--input-size", "big"], "--input-size"),
        (["--input-size", "4x4"], "input size"),
        (["--input-size", "63x77"], "63x77"),
        (["--mean", "black"], "--mean"),
        (["--mean", "1,2"], "mean"),
        (["--mean", "nan"], "mean"),
        (["--std", "0"], "std"),
        (["--std", "inf"], "std"),
        (["--channel-order", "gbr"], "gbr"),
        (["--output-kind", "heatmap"], "heatmap"),
        (["--weights", "none.pth"], "--weights"),
    ],
)
def test_options_that_make_no_sense(
    run: Run, pt2: Path, shapes: Path, tmp_path: Path, options: list[str], word: str
) -> None:
    one_line(run("slim", pt2, "--data", shapes, "--out", tmp_path / "run", *options), word)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "word"),
    [(["--mean", "x"], "--mean"), (["--std", "-1"], "std"), (["--output-kind", "x"], "output kind")],
)
def test_options_for_a_foreign_file(run: Run, tflite: Path, shapes: Path, options: list[str], word: str) -> None:
    one_line(run("evaluate", tflite, "--data", shapes, *options), word)


def test_an_unknown_precision(run: Run, pt2: Path) -> None:
    one_line(run("diagnose", pt2, "--precision", "int3"), "--precision", "int3")


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["slim"], "MODEL"),
        (["slim", "model.pt2"], "--out"),
        (["polish"], "polish"),
        (["profile", "model.pt2", "--runs", "0"], "--runs"),
        (["profile", "model.pt2", "--threads", "many"], "--threads"),
        (["profile", "--colour", "model.pt2"], "--colour"),
        (["profile", "model.pt2", "another.pt2"], "another.pt2"),
    ],
)
def test_usage(run: Run, arguments: list[str], word: str) -> None:
    one_line(run(*arguments), word, "--help")


def test_a_demo_that_misses_its_budget_has_shown_what_it_should(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As on a machine that is too slow to train in time: `make demo` is no failure."""
    monkeypatch.setattr("slimseg.demonstration.demo.demo", lambda *_: SimpleNamespace(budget_met=False))
    monkeypatch.setattr("slimseg.report.terminal.show_slim", lambda _: print("Budget not met"))
    ran = run("demo", "--out", tmp_path / "demo")
    assert (ran.code, ran.out) == (0, "Budget not met\n")


# Where the result should go


@pytest.mark.parametrize("command", ["slim", "demo"])
def test_a_folder_with_something_in_it_is_left_alone(
    run: Run, pt2: Path, shapes: Path, tmp_path: Path, command: str
) -> None:
    (tmp_path / "result.json").write_text("precious")
    given = [pt2, "--data", shapes] if command == "slim" else []
    one_line(run(command, *given, "--out", tmp_path), "not empty")
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]
    assert (tmp_path / "result.json").read_text() == "precious"


def test_places_that_cannot_be_written(run: Run, pt2: Path, shapes: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    one_line(run("slim", pt2, "--data", shapes, "--out", tmp_path / "file"), "file")
    one_line(run("slim", pt2, "--data", shapes, "--out", tmp_path / "file" / "run"), "run")
    assert (tmp_path / "file").read_text() == "precious"
    if Path("/proc").is_dir():
        one_line(run("slim", pt2, "--data", shapes, "--out", "/proc/run"), "/proc/run")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_place_without_permission(run: Run, pt2: Path, shapes: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    one_line(run("slim", pt2, "--data", shapes, "--out", tmp_path / "run"), "run", "ermission")


def test_a_disk_without_room(
    run: Run, pt2: Path, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1_000_000))
    one_line(run("slim", pt2, "--data", shapes, "--out", tmp_path / "run"), "1 MB of free space", "free some space")
    assert not (tmp_path / "run").exists()


def test_a_disk_that_fills_up_on_the_way(
    run: Run, pt2: Path, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "model.tflite")

    monkeypatch.setattr(writer, "write", full)
    ran = run("slim", pt2, "--data", shapes, "--out", tmp_path / "run")
    assert ran.code == 2
    assert ran.err.splitlines()[-1] == "error: model.tflite cannot be read or written: No space left on device"


# What is not the user's fault


@pytest.mark.parametrize("error", [RuntimeFailure("LiteRT crashed on it"), Unsupported("a node is unknown")])
def test_failures_are_one_line_and_code_1(
    run: Run, tflite: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("slimseg.runtimes.litert.profiling.profiler.profile", fail)
    ran = run("profile", tflite)
    assert ran == Ran(1, "", f"error: {error}\n")


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "slimseg.cli"]
    arguments = ["profile", str(tmp_path / "none.tflite")]
    plain, debug = (
        subprocess.run([*command, *more, *arguments], capture_output=True, text=True, check=False)
        for more in ([], ["--debug"])
    )
    assert plain.returncode == 2
    assert plain.stderr.count("\n") == 1
    assert debug.returncode != 0
    assert "Traceback" in debug.stderr
    assert "ModelError" in debug.stderr
