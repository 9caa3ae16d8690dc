"""Files with weights in float16 through every command: they stay what they are, and are what all is compared with."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from command_line import Run

import slimseg
from slimseg import techniques
from slimseg.graph.graph import Graph
from slimseg.planning.choosing.budget import Budget
from slimseg.quantisation import timing
from slimseg.report.terminal import show_slim
from slimseg.results import QuantisationResult, SlimResult
from slimseg.runtimes.litert.quantising import quantizer
from slimseg.runtimes.litert.runtime import LITERT
from slimseg.tflite import costs, file


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
    LITERT.write(graph, path)
    assert file.read(path).weights == "float16"
    return path


@pytest.fixture(scope="module")
def tried(half: Path, shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> QuantisationResult:
    return slimseg.quantize(half, out=tmp_path_factory.mktemp("out") / "best.tflite", images=shapes, ranges="mean")


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
    result = slimseg.quantize(half, out=tmp_path / "again.tflite", scheme="float16")
    assert "the unchanged file" in result.verdict
    assert file.read(tmp_path / "again.tflite").weights == "float16"
    assert result.chosen.size_bytes == pytest.approx(half.stat().st_size, rel=0.02)


def test_what_stays_in_float_stays_in_16_bits(half: Path, shapes: Path, tmp_path: Path) -> None:
    largest = max(file.operators(half), key=lambda each: each.params)
    sizes = []
    for source in (half, write_wide(half, tmp_path)):
        result = slimseg.quantize(
            source, out=tmp_path / "out.tflite", images=shapes,
            scheme="int8", ranges="mean", correct="none", keep_float=[largest.name],
        )  # fmt: skip
        sizes += [row.size_bytes for row in result.candidates if row.kept_float]
    narrow, wide = sizes
    assert wide - narrow == pytest.approx(2 * largest.params, rel=0.1)


def test_its_int8_file_is_that_of_the_same_numbers_in_32_bits(half: Path, shapes: Path, tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours.tflite", tmp_path / "theirs.tflite"
    for source, out in ((half, ours), (write_wide(half, tmp_path), theirs)):
        slimseg.quantize(source, out=out, images=shapes, scheme="int8", ranges="mean", correct="none")
    assert slimseg.evaluate(ours, images=shapes).class_iou == slimseg.evaluate(theirs, images=shapes).class_iou
    assert ours.stat().st_size == pytest.approx(theirs.stat().st_size, rel=0.01)


@pytest.mark.parametrize(("asked", "weights"), [("", "float16"), (":float16", "float16"), (":float32", "float32")])
def test_export_keeps_the_precision_unless_asked_otherwise(
    half: Path, shapes: Path, tmp_path: Path, asked: str, weights: str
) -> None:
    result = slimseg.export(half, out=tmp_path / "app", to=f"tflite{asked}", images=shapes)
    (artefact,) = result.card.artefacts
    assert artefact.precision == weights
    assert file.read(tmp_path / "app" / artefact.files[0]).weights == weights
    assert artefact.disagreement == 0
    if weights == "float16":
        assert artefact.size_bytes < 1.1 * half.stat().st_size


def test_any_network_is_exported_in_float16_where_asked(shapes_graph: Graph, shapes: Path, tmp_path: Path) -> None:
    result = slimseg.export(shapes_graph, out=tmp_path / "app", to="tflite,tflite:float16", images=shapes)
    wide, narrow = result.card.artefacts
    assert (wide.precision, narrow.precision) == ("float32", "float16")
    assert narrow.size_bytes < 0.6 * wide.size_bytes
    assert "float16" in (tmp_path / "app" / "model_card.md").read_text()


@pytest.fixture(scope="module")
def edited(half: Path, tmp_path_factory: pytest.TempPathFactory) -> SlimResult:
    return slimseg.slim(half, images=None, out=tmp_path_factory.mktemp("run") / "out", budget=Budget(needs="nothing"))


def test_exact_edits_keep_float16_weights(edited: SlimResult, half: Path) -> None:
    assert edited.edits
    assert edited.max_difference is not None
    assert edited.max_difference < 1e-4
    assert edited.baseline.size_bytes == half.stat().st_size
    assert edited.baseline.weights == "float16"
    assert edited.after.size_bytes < 1.2 * half.stat().st_size


def test_in_32_bits_is_only_what_came_so_and_would_be_rounded(edited: SlimResult, half: Path) -> None:
    """The classifier's 48 weights are too few to be worth 16 bits in the source. An edit spreads them over more."""
    before, after = (wide_weights(path) for path in (half, Path(edited.run) / "model.tflite"))
    assert set(before) == {"classify"}
    assert all(name.startswith("classify") for name in after)
    assert all(not np.array_equal(values.astype(np.float16), values) for values in after.values())
    assert set(np.concatenate([each.ravel() for each in after.values()])) <= {0, *before["classify"].ravel()}
    assert edited.after.weights == "float16 and float32"


def test_a_file_all_in_16_bits_stays_so(half: Path, tmp_path: Path) -> None:
    """Also in layers that an edit makes."""
    graph, path = slimseg.load(half), tmp_path / "edited.tflite"
    for value in graph.module.parameters():
        value.data = value.data.half().float()
    for technique in (techniques.named("transposed convolution to depth to space"), techniques.named(LAST)):
        while sites := technique.find(graph).sites:
            graph = technique.apply(graph, sites[0])
    LITERT.write(graph, path, "exact")
    assert any(each.op == "DEPTH_TO_SPACE" for each in file.operators(path))
    assert file.read(path).weights == "float16"
    assert not wide_weights(path)


LAST = "depth to space last"


def wide_weights(path: Path) -> dict[str, np.ndarray]:
    """By layer: weights that are stored in 32 bits."""
    _, model = file.opened(path)
    graph = model.subgraphs[0]
    made = {int(operator.outputs[0]) for operator in graph.operators}
    found = {}
    for operator in graph.operators:
        index = int(operator.inputs[1]) if len(operator.inputs) > 1 else -1
        if index >= 0 and index not in made and costs.dtype_name(graph.tensors[index]) == "float32":
            values = np.frombuffer(bytes(model.buffers[graph.tensors[index].buffer].data), np.float32)
            found[graph.tensors[int(operator.outputs[0])].name.decode()] = values
    return found


def test_reports_tell_the_precision_of_weights(edited: SlimResult, capsys: pytest.CaptureFixture[str]) -> None:
    assert json.loads((Path(edited.run) / "result.json").read_text())["result"]["weights"] == edited.after.weights
    assert "weights in float16" in (Path(edited.run) / "report.html").read_text()
    show_slim(edited)
    assert "weights in float16" in capsys.readouterr().out


def test_a_file_with_weights_in_8_bits_is_not_made_four_times_as_large(half: Path, tmp_path: Path) -> None:
    source = tmp_path / "weights.tflite"
    quantizer.quantize(write_wide(half, tmp_path), source, "weight-only")
    result = slimseg.slim(source, images=None, out=tmp_path / "out", budget=Budget(needs="nothing"))
    assert result.after.size_bytes == result.baseline.size_bytes == source.stat().st_size
    assert any("weights have 8 bits" in each.reason for each in result.refusals)


def write_wide(half: Path, folder: Path) -> Path:
    path = folder / "wide.tflite"
    LITERT.write(slimseg.load(half), path, "full")
    return path


def test_commands_say_so(half: Path, shapes: Path, tmp_path: Path, run: Run) -> None:
    code, out, err = run("quantize", half, "--out", tmp_path / "out.tflite", "--scheme", "dynamic", "--json")
    assert (code, json.loads(out)["baseline"]["scheme"]) == (0, "float16"), err
    assert "float16" in json.loads(out)["verdict"]
