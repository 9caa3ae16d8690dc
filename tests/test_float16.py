"""Files with weights in float16 through every command: they stay what they are, and are what all is compared with."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import Run

import slimseg
from slimseg.graph.graph import Graph
from slimseg.quantisation import timing
from slimseg.results import QuantisationResult
from slimseg.runtimes import runtime
from slimseg.runtimes.litert import file


@pytest.fixture(autouse=True, scope="module")
def quick(quick_timing: None) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "SECONDS_PER_FILE", 0.02)
        yield


@pytest.fixture(scope="module")
def half(shapes_graph: Graph, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained shapes network, its weights rounded to float16."""
    graph, path = shapes_graph.copy(), tmp_path_factory.mktemp("models") / "half.tflite"
    graph.weights = "float16"
    runtime.LITERT.write(graph, path)
    assert file.read(path).weights == "float16"
    return path


@pytest.fixture(scope="module")
def tried(half: Path, shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> QuantisationResult:
    return slimseg.quantize(half, tmp_path_factory.mktemp("out") / "best.tflite", shapes, ranges="mean")


def test_quantize_takes_it_for_the_float_network_that_it_is(tried: QuantisationResult, half: Path) -> None:
    rows = {row.scheme: row for row in tried.candidates}
    assert (tried.baseline.scheme, tried.baseline.size_bytes) == ("float16", half.stat().st_size)
    assert rows["float16"].latency_ms == tried.baseline.latency_ms  # the file itself, not timed twice
    assert rows["float16"].speedup == 1
    assert rows["float16"].agreement == 100
    assert all(row.was_made for row in rows.values())
    assert rows["int8"].agreement is not None
    assert rows["int8"].agreement > 98
    assert rows["int8"].size_bytes < 0.8 * tried.baseline.size_bytes


def test_asked_for_float16_it_is_handed_back_as_it_is(half: Path, tmp_path: Path) -> None:
    result = slimseg.quantize(half, tmp_path / "again.tflite", scheme="float16")
    assert "the file as it is" in result.verdict
    assert file.read(tmp_path / "again.tflite").weights == "float16"
    assert result.chosen.size_bytes == pytest.approx(half.stat().st_size, rel=0.02)


def test_what_stays_in_float_stays_in_16_bits(half: Path, shapes: Path, tmp_path: Path) -> None:
    largest = max(file.operators(half), key=lambda each: each.params).name
    out = tmp_path / "mixed.tflite"
    slimseg.quantize(half, out, shapes, scheme="int8", ranges="mean", correct="none", keep_float=[largest])
    assert set(file.read(out).weights.split(" and ")) == {"int8", "float16"}


def test_its_int8_file_is_that_of_the_same_numbers_in_32_bits(half: Path, shapes: Path, tmp_path: Path) -> None:
    wide, ours, theirs = (tmp_path / f"{name}.tflite" for name in ("wide", "ours", "theirs"))
    runtime.LITERT.write(slimseg.load(half), wide, "full")
    for source, out in ((half, ours), (wide, theirs)):
        slimseg.quantize(source, out, shapes, scheme="int8", ranges="mean", correct="none")
    assert slimseg.evaluate(ours, shapes).class_iou == slimseg.evaluate(theirs, shapes).class_iou
    assert ours.stat().st_size == pytest.approx(theirs.stat().st_size, rel=0.01)


@pytest.mark.parametrize(("asked", "weights"), [("", "float16"), (":float16", "float16"), (":float32", "float32")])
def test_export_keeps_the_precision_unless_asked_otherwise(
    half: Path, shapes: Path, tmp_path: Path, asked: str, weights: str
) -> None:
    result = slimseg.export(half, tmp_path / "app", f"tflite{asked}", data=shapes)
    (artefact,) = result.card.artefacts
    assert artefact.precision == weights
    assert file.read(tmp_path / "app" / artefact.files[0]).weights == weights
    assert artefact.disagreement == 0
    if weights == "float16":
        assert artefact.size_bytes < 1.1 * half.stat().st_size


def test_any_network_is_exported_in_float16_where_asked(shapes_graph: Graph, shapes: Path, tmp_path: Path) -> None:
    result = slimseg.export(shapes_graph, tmp_path / "app", "tflite,tflite:float16", data=shapes)
    wide, narrow = result.card.artefacts
    assert (wide.precision, narrow.precision) == ("float32", "float16")
    assert narrow.size_bytes < 0.6 * wide.size_bytes
    assert "float16" in (tmp_path / "app" / "model_card.md").read_text()


def test_commands_say_so(half: Path, shapes: Path, tmp_path: Path, run: Run) -> None:
    code, out, err = run("quantize", half, "--out", tmp_path / "out.tflite", "--scheme", "dynamic", "--json")
    assert (code, json.loads(out)["baseline"]["scheme"]) == (0, "float16"), err
    assert "float16" in json.loads(out)["verdict"]
