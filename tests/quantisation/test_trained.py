"""`--train`: one more int8 file, trained."""

from __future__ import annotations

from pathlib import Path

import pytest

import slimseg
from slimseg.errors import UserError
from slimseg.graph.graph import Graph
from slimseg.quantisation import schemes, trained
from slimseg.tflite import file


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, quick_timing: None) -> None:
    monkeypatch.setattr(trained, "_STEPS", 10)


@pytest.mark.parametrize(("io", "dtype"), [("float32", "float32"), ("image", "uint8")])
def test_one_more_row(shapes_graph: Graph, shapes: Path, tmp_path: Path, io: str, dtype: str) -> None:
    out = tmp_path / "trained.tflite"
    result = slimseg.quantize(
        shapes_graph,
        out=out,
        images=shapes,
        scheme="int8",
        io=io,
        ranges="mean",
        correct="none",
        train_s=3600.0,  # type: ignore[arg-type]
    )
    assert [row.corrected for row in result.candidates] == ["", schemes.TRAINED]
    row = result.candidates[-1]
    assert row.was_made
    assert row.miou is not None
    assert file.read(out).inputs[0].dtype == dtype


def test_what_cannot_be_trained_is_refused_before_anything_is_written(shapes_graph: Graph, tmp_path: Path) -> None:
    out = tmp_path / "trained.tflite"
    with pytest.raises(UserError, match="give `images`"):
        slimseg.quantize(shapes_graph, out=out, images=None, scheme="auto", train_s=3600.0)
    with pytest.raises(UserError, match="applies to int8 only"):
        slimseg.quantize(shapes_graph, out=out, images=tmp_path, scheme="float16", train_s=3600.0)
    assert not out.exists()
