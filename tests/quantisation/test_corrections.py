"""Corrected networks among the candidates of `slimseg quantize`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import slimseg
from slimseg.errors import UserError
from slimseg.graph.graph import Graph
from slimseg.quantisation import corrections
from slimseg.results import QuantisationResult, QuantisedFile
from slimseg.runtimes.litert.writing import writer

pytestmark = pytest.mark.usefixtures("quick_timing")


def corrected(result: QuantisationResult) -> list[QuantisedFile]:
    return [row for row in result.candidates if row.corrected]


def test_what_int8_cannot_hold_is_corrected(uneven: Graph, shapes: Path, tmp_path: Path) -> None:
    before = {name: value.clone() for name, value in uneven.module.state_dict().items()}
    result = slimseg.quantize(uneven, out=tmp_path / "out.tflite", images=shapes, scheme="int8", ranges="mean")
    plain, *rest = result.candidates
    assert result.baseline.miou is not None
    assert plain.miou is not None
    assert plain.miou < result.baseline.miou - 2
    assert rest[0].corrected == "equalise"
    assert all(not corrections.is_enough(result.baseline, row) for row in rest[:-1]), "enough is enough"
    assert result.chosen.corrected
    assert result.chosen.miou == pytest.approx(result.baseline.miou, abs=1)
    assert f"corrected by {result.chosen.corrected}" in result.verdict
    assert slimseg.evaluate(result.file, images=shapes).miou == pytest.approx(result.chosen.miou, abs=1e-9)
    assert all(torch.equal(value, before[name]) for name, value in uneven.module.state_dict().items())


def test_a_healthy_network_is_left_alone(shapes_graph: Graph, shapes: Path, tmp_path: Path) -> None:
    result = slimseg.quantize(shapes_graph, out=tmp_path / "out.tflite", images=shapes, scheme="int8", ranges="mse")
    lost = result.baseline.miou - result.candidates[0].miou  # type: ignore[operator]
    assert bool(corrected(result)) == (lost > corrections.ENOUGH)


def test_what_is_asked_for_is_tried_though_nothing_is_lost(shapes_graph: Graph, shapes: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.tflite"
    bias = slimseg.quantize(shapes_graph, out=out, images=shapes, scheme="int8", ranges="mse", correct="bias")
    assert [row.corrected for row in corrected(bias)] == ["bias"]
    none = slimseg.quantize(shapes_graph, out=out, images=shapes, scheme="int8", ranges="mse", correct="none")
    assert not corrected(none)


def test_a_file_of_somebody_else_is_opened_for_it(uneven: Graph, shapes: Path, tmp_path: Path) -> None:
    path = tmp_path / "uneven.tflite"
    writer.write(uneven, path)
    result = slimseg.quantize(
        path, out=tmp_path / "out.tflite", images=shapes, ranges="mean", correct="both", keep_float="none"
    )
    assert [row.corrected for row in corrected(result)] == ["equalise", "equalise 64", "both 64"]
    assert {row.scheme for row in corrected(result)} == {"int8"}, "other schemes stay as they are"
    assert min(row.miou or 0 for row in corrected(result)) > result.candidates[3].miou  # type: ignore[operator]


def test_names_that_make_no_sense(shapes_graph: Graph, shapes: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="`correct` 'all' must be one of none"):
        slimseg.quantize(shapes_graph, out=tmp_path / "out.tflite", images=shapes, correct="all")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="`correct` bias applies to int8 only, not to `scheme` float16"):
        slimseg.quantize(shapes_graph, out=tmp_path / "out.tflite", images=shapes, scheme="float16", correct="bias")
