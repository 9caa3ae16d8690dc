"""`slimseg quantize` from end to end: what is tried, what is kept, and what is refused in one sentence."""

from __future__ import annotations

import json
import shutil
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from ai_edge_litert import schema_py_generated as schema
from command_line import Ran, Run
from PIL import Image
from torch import nn

import slimseg
from slimseg.errors import DataError, ModelError, OutputError, RuntimeFailure, UserError
from slimseg.graph.graph import Graph
from slimseg.planning.choosing.budget import Budget
from slimseg.quantisation import timing
from slimseg.results import QuantisationResult
from slimseg.runtimes.litert.quantising import quantizer
from slimseg.runtimes.litert.writing import writer
from slimseg.tflite import file

SCHEMES = ["float16", "dynamic", "weight-only", *["int8"] * 4, "int16x8"]


@pytest.fixture(autouse=True, scope="module")
def _quick(quick_timing: None) -> None:
    """For every test here."""


@pytest.fixture(scope="module")
def tflite(shapes_graph: Graph, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "shapes.tflite"
    writer.write(shapes_graph, path)
    return path


@pytest.fixture
def folder(shapes: Path, tmp_path: Path) -> Path:
    """A copy of the drawn shapes that may be spoilt."""
    return Path(shutil.copytree(shapes, tmp_path / "data"))


@pytest.fixture(scope="module")
def tried(tflite: Path, shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> QuantisationResult:
    return slimseg.quantize(tflite, out=tmp_path_factory.mktemp("out") / "best.tflite", images=shapes)


# What works


def test_everything_is_tried_and_measured(tried: QuantisationResult) -> None:
    assert [row.scheme for row in tried.candidates] == SCHEMES
    assert tried.baseline.miou is not None
    assert tried.baseline.miou > 90
    assert (tried.calibration_images, tried.validation_images) == (16, 6)
    for row in tried.candidates:
        assert row.was_made, row
        assert row.size_bytes < 0.7 * tried.baseline.size_bytes
        assert row.miou == pytest.approx(tried.baseline.miou, abs=1.5)
        assert row.agreement is not None
        assert row.agreement > 98
    assert tried.chosen in tried.candidates
    assert tried.chosen.scheme in tried.verdict


def test_the_kept_file_is_the_row(tried: QuantisationResult, shapes: Path) -> None:
    path = Path(tried.file)
    assert path.stat().st_size == tried.chosen.size_bytes
    assert slimseg.evaluate(path, images=shapes).miou == pytest.approx(tried.chosen.miou, abs=1e-9)
    assert [each.name for each in path.parent.iterdir()] == ["best.tflite"]


def test_without_images_schemes_without_ranges_are_left(tflite: Path, tmp_path: Path) -> None:
    result = slimseg.quantize(tflite, out=tmp_path / "out.tflite")
    assert [row.scheme for row in result.candidates if row.was_made] == ["float16", "dynamic", "weight-only"]
    assert {row.reason for row in result.candidates if not row.was_made} == {
        "needs images for the ranges of activations"
    }
    assert (result.baseline.agreement, result.chosen.agreement, result.validation_images) == (None, None, 0)
    assert result.budget == ()


def test_images_for_ranges_are_counted_where_there_are_ranges(tflite: Path, shapes: Path, tmp_path: Path) -> None:
    result = slimseg.quantize(tflite, out=tmp_path / "out.tflite", images=shapes, scheme="float16")
    assert (result.calibration_images, result.validation_images) == (0, 6)


def test_agreement_where_there_are_no_labels(tflite: Path, shapes: Path, tmp_path: Path) -> None:
    images = shapes / "train" / "images"
    result = slimseg.quantize(tflite, out=tmp_path / "out.tflite", images=images, scheme="int8", ranges="mse")
    assert [(row.scheme, row.ranges) for row in result.candidates] == [("int8", "mse")]
    assert result.chosen.miou is None
    assert result.chosen.agreement is not None
    assert 97 < result.chosen.agreement < 100
    assert result.budget[0].name == "changed_pixels"
    assert (result.calibration_images, result.validation_images) == (13, 3)


@pytest.mark.parametrize("io", ["int8", "image"])
def test_other_inputs_are_for_int8_alone(shapes_graph: Graph, shapes: Path, tmp_path: Path, io: str) -> None:
    """A Graph's normalisation goes into its first convolution where bytes go in."""
    result = slimseg.quantize(shapes_graph, out=tmp_path / "out.tflite", images=shapes, ranges="mean", io=io)  # type: ignore[arg-type]
    assert [row.scheme for row in result.candidates if row.was_made] == ["int8"]
    found = file.read(result.file)
    assert found.inputs[0].dtype == ("uint8" if io == "image" else "int8")
    assert found.outputs[0].dtype == "int8"
    assert result.chosen.miou == pytest.approx(result.baseline.miou, abs=1.5)


def test_an_operator_that_slimseg_does_not_know(tflite: Path, shapes: Path, tmp_path: Path) -> None:
    """The file is quantised as it is; it need not become a Graph."""
    model = file.parse(tflite.read_bytes(), tflite)
    graph = model.subgraphs[0]
    last = graph.operators[-1]
    result = int(last.outputs[0])
    operator = schema.OperatorT()
    entry = schema.OperatorCodeT()
    entry.builtinCode, entry.version = schema.BuiltinOperator.COS, 1
    entry.deprecatedBuiltinCode = schema.BuiltinOperator.COS
    model.operatorCodes.append(entry)
    inner = schema.TensorT()
    inner.name, inner.shape, inner.buffer = b"before_cosine", graph.tensors[result].shape, 0
    inner.type = schema.TensorType.FLOAT32
    graph.tensors.append(inner)
    operator.opcodeIndex = len(model.operatorCodes) - 1
    last.outputs = np.asarray([len(graph.tensors) - 1], np.int32)
    operator.inputs, operator.outputs = last.outputs, np.asarray([result], np.int32)
    graph.operators.append(operator)
    path = tmp_path / "cosine.tflite"
    path.write_bytes(file.pack(model))
    with pytest.raises(ModelError, match="COS"):
        slimseg.load(path)
    found = slimseg.quantize(path, out=tmp_path / "out.tflite", images=shapes, scheme="int8", ranges="minmax")
    assert next(each for each in file.operators(found.file) if each.op == "COS").dtype == "float32"
    assert found.islands or found.fallbacks


def test_a_scheme_that_fails_is_a_row(
    tflite: Path, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = quantizer.quantize

    def failing(source: Path, out: Path, scheme: str, *more: object) -> None:
        if scheme == "dynamic":
            raise RuntimeFailure(f"{out}: the native runtime refused: something")
        real(source, out, scheme, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(quantizer, "quantize", failing)
    result = slimseg.quantize(tflite, out=tmp_path / "out.tflite")
    (row,) = [row for row in result.candidates if row.scheme == "dynamic"]
    assert not row.was_made
    assert row.reason == "dynamic_plain.tflite: the native runtime refused: something"
    assert result.chosen.was_made
    with pytest.raises(RuntimeFailure, match="something"):
        slimseg.quantize(tflite, out=tmp_path / "other.tflite", scheme="dynamic")
    assert not (tmp_path / "other.tflite").exists()


def test_what_is_far_too_slow_is_not_judged(
    tflite: Path, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """16-bit activations have no kernels on XNNPACK; asked for alone, they are judged all the same."""
    monkeypatch.setattr(sys.modules["slimseg.commands.quantize"], "PATIENCE_MS", 0.0)
    result = slimseg.quantize(tflite, out=tmp_path / "out.tflite", images=shapes, ranges="mean")
    slow = result.candidates[-1]
    assert slow.scheme == "int16x8"
    assert slow.speedup < 1 / timing.SLOW
    assert "slower than float32: accuracy not measured" in slow.reason
    assert slow.miou is None
    alone = slimseg.quantize(tflite, out=tmp_path / "out.tflite", images=shapes, scheme="int16x8")
    assert alone.chosen.miou == pytest.approx(alone.baseline.miou, abs=0.5)
    assert "int16x8 (ranges by minmax) is slower than float32 on this runtime" in alone.verdict


def test_a_budget_that_cannot_be_met(tflite: Path, shapes: Path, tmp_path: Path) -> None:
    budget = Budget(max_size_bytes=2000)
    result = slimseg.quantize(
        tflite, out=tmp_path / "out.tflite", images=shapes, scheme="int8", ranges="mse", budget=budget
    )
    assert not result.budget_met
    assert [check.met for check in result.budget] == [True, False]
    assert (tmp_path / "out.tflite").is_file()


# The command


@pytest.fixture
def quantize(run: Run) -> Run:
    """Calls `slimseg quantize ARGUMENTS`."""
    return partial(run, "quantize")


def refused(ran: Ran, *words: str) -> None:
    """One sentence and nothing else."""
    assert ran.code == 2, ran
    assert ran.out == ""
    assert ran.err.count("error: ") == 1
    assert ran.err.splitlines()[-1].startswith("error: ")
    for word in words:
        assert word in ran.err


def test_the_table(quantize: Run, tflite: Path, shapes: Path, tmp_path: Path) -> None:
    ran = quantize(tflite, "--images", shapes, "--ranges", "mse", "--out", tmp_path / "out.tflite")
    assert ran.code == 0, ran.err
    assert all(scheme in ran.out for scheme in SCHEMES)
    assert "Kept: " in ran.out
    assert "ranges from 16 images" in ran.out


def test_json(quantize: Run, tflite: Path, tmp_path: Path) -> None:
    ran = quantize(tflite, "--scheme", "float16", "--out", tmp_path / "out.tflite", "--json")
    assert ran.code == 0
    assert json.loads(ran.out)["chosen"]["scheme"] == "float16"


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--scheme", "int3"], "--scheme"),
        (["--ranges", "kl"], "--ranges"),
        (["--ranges", "mse", "--scheme", "float16"], "no ranges"),
        (["--io", "uint8"], "--io"),
        (["--correct", "all"], "--correct"),
        (["--correct", "bias", "--scheme", "dynamic"], "applies to int8 only"),
        (["--keep-float", ","], "names no layer"),
        (["--keep-float", "nothing"], "no such layer"),
        (["--io", "int8", "--scheme", "dynamic"], "float32 input and output only"),
        (["--io", "int8"], "give --data"),
        (["--scheme", "int8"], "needs images"),
        (["--scheme", "int16x8"], "needs images"),
        (["--max-drop", "-1"], "--max-drop"),
        (["--max-size", "small"], "--max-size"),
        (["--std", "0"], "std"),
        (["--weights", "none.pth"], "--weights"),
        (["--calibration-images", "0"], "--calibration-images"),
    ],
)
def test_options_that_make_no_sense(quantize: Run, tflite: Path, tmp_path: Path, options: list[str], word: str) -> None:
    refused(quantize(tflite, "--out", tmp_path / "out.tflite", *options), word)
    assert not list(tmp_path.iterdir())


# Places


def test_the_model_itself_is_never_replaced(quantize: Run, tflite: Path, tmp_path: Path) -> None:
    path, link = tmp_path / "model.tflite", tmp_path / "link.tflite"
    shutil.copyfile(tflite, path)
    link.symlink_to(path)
    for out in (path, link):
        refused(quantize(path, "--out", out), "is the model itself")
    assert path.read_bytes() == tflite.read_bytes()


def test_places_that_cannot_be_written(quantize: Run, tflite: Path, tmp_path: Path) -> None:
    (tmp_path / "folder.tflite").mkdir()
    refused(quantize(tflite, "--out", tmp_path / "folder.tflite"), "is a folder")
    refused(quantize(tflite, "--out", tmp_path / "none" / "out.tflite"), "does not exist")
    refused(quantize(tflite, "--out", tmp_path / "out.onnx"), "give it that ending")


def test_an_old_file_stays_until_the_new_one_is_whole(
    tflite: Path, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.tflite"
    out.write_text("precious")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OutputError):
        slimseg.quantize(tflite, out=out, scheme="float16")
    assert out.read_text() == "precious"
    monkeypatch.undo()
    slimseg.quantize(tflite, out=out, scheme="float16")
    assert file.read(out).operators
    assert [path.name for path in tmp_path.iterdir()] == ["out.tflite"]


# Models


def test_models_that_cannot_be_quantised(quantize: Run, tflite: Path, shapes: Path, tmp_path: Path) -> None:
    out = tmp_path / "out" / "out.tflite"
    out.parent.mkdir()
    refused(quantize(tmp_path / "none.tflite", "--out", out), "none.tflite")
    (tmp_path / "text.tflite").write_text("hello, world, this is a text")
    refused(quantize(tmp_path / "text.tflite", "--out", out), "text.tflite", "not a .tflite")
    for scheme in ("dynamic", "int8"):
        made = tmp_path / f"{scheme}.tflite"
        slimseg.quantize(tflite, out=made, images=shapes, scheme=scheme)
        refused(quantize(made, "--data", shapes, "--out", out), made.name, "already quantised")
    assert not list(out.parent.iterdir())


def test_nan_weights(quantize: Run, shapes_net: nn.Module, shapes: Path, tmp_path: Path) -> None:
    spoilt = slimseg.load(shapes_net, (128, 160), name="spoilt")
    with torch.no_grad():
        next(spoilt.module.parameters())[0] = float("nan")
    with pytest.raises(ModelError, match="spoilt has NaN or infinite weights"):
        slimseg.quantize(spoilt, out=tmp_path / "out.tflite", images=shapes)
    path = tmp_path / "spoilt.tflite"
    writer.write(spoilt, path)
    refused(quantize(path, "--data", shapes, "--out", tmp_path / "out.tflite"), "spoilt.tflite has NaN")
    assert not (tmp_path / "out.tflite").exists()


# Images


def pictures(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def test_pictures_of_any_mode_and_size_are_read(tflite: Path, folder: Path, tmp_path: Path) -> None:
    paths = pictures(folder / "train" / "images")
    for path, mode in zip(paths, ("L", "LA", "RGBA", "P", "CMYK", "1", "RGB", "RGB"), strict=False):
        picture = Image.open(path).convert(mode).resize((40 + 60 * paths.index(path), 90))
        path.unlink()
        picture.save(path.with_suffix(".tif"))
    images = folder / "train" / "images"
    found = slimseg.quantize(tflite, out=tmp_path / "out.tflite", images=images, scheme="int8", ranges="mean")
    assert found.calibration_images == 13
    assert found.chosen.agreement is not None
    assert found.chosen.agreement > 97


def test_pictures_that_cannot_be_used(quantize: Run, tflite: Path, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.tflite"
    first = pictures(folder / "train" / "images")[0]
    first.unlink()
    Image.fromarray(np.arange(128 * 160, dtype=np.uint16).reshape(128, 160)).save(first)
    refused(quantize(tflite, "--data", folder, "--out", out), first.name, "more than 8 bits")
    first.write_text("no image")
    refused(quantize(tflite, "--data", folder, "--out", out), first.name, "not an image")
    (tmp_path / "empty").mkdir()
    refused(quantize(tflite, "--data", tmp_path / "empty", "--out", out), "has no images")
    refused(quantize(tflite, "--data", tmp_path / "none", "--out", out), "is not a folder")
    assert not out.exists()


def test_pictures_of_one_colour(quantize: Run, tflite: Path, folder: Path, tmp_path: Path) -> None:
    paths = pictures(folder / "train" / "images")
    for path in paths[:3]:
        Image.new("RGB", (160, 128), (9, 9, 9)).save(path)
    result = slimseg.quantize(tflite, out=tmp_path / "out.tflite", images=folder, scheme="int8", ranges="mean")
    assert result.calibration_images == 13
    assert "3 images of a single colour" in result.notes[0]
    for path in paths[3:]:
        Image.new("RGB", (160, 128), (200, 9, 9)).save(path)
    out = tmp_path / "other.tflite"
    refused(quantize(tflite, "--data", folder, "--out", out), "single colour")
    assert not out.exists()


def test_errors_are_of_their_kind(tflite: Path, shapes: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError):
        slimseg.quantize(tflite, out=tmp_path / "out.tflite", scheme="int8")
    with pytest.raises(UserError):
        slimseg.quantize(tflite, out=tmp_path / "out.tflite", images=shapes, scheme="float16", io="image")
