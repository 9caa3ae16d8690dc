"""Layers that stay in float32 within an int8 file."""

from __future__ import annotations

from pathlib import Path

import pytest

import slimseg
from slimseg.errors import UserError
from slimseg.graph.graph import Graph
from slimseg.planning.choosing.budget import Budget
from slimseg.quantisation import mixed_precision
from slimseg.results import LayerSensitivity
from slimseg.runtimes.litert.writing import writer
from slimseg.tflite import file

pytestmark = pytest.mark.usefixtures("quick_timing")


def test_the_worst_layers_stay_in_float(uneven: Graph, shapes: Path, tmp_path: Path) -> None:
    """As few as bring the loss within the budget."""
    out, budget = tmp_path / "out.tflite", Budget(max_drop=1.0)
    result = slimseg.quantize(
        uneven, out=out, images=shapes, scheme="int8", ranges="mean", correct="none", budget=budget
    )
    assert result.budget_met
    assert result.chosen == result.candidates[-1], "the search ends where the budget holds"
    kept = result.chosen.kept_float
    assert 1 <= len(kept) <= 4
    assert set(kept) == {each.layer for each in result.sensitivities[: len(kept)]}
    assert result.sensitivities[0].changed_percent > 0.3
    assert result.chosen.kept_cost_ms is not None
    assert f"int8 with {len(kept)} layer" in result.verdict
    computed = {operator.name: operator.dtype for operator in file.read(out).operators}
    assert all(computed[name] == "float32" for name in kept)
    assert "int8" in computed.values()


def test_a_file_of_somebody_else(uneven: Graph, shapes: Path, tmp_path: Path) -> None:
    path = tmp_path / "uneven.tflite"
    writer.write(uneven, path)
    result = slimseg.quantize(
        path, out=tmp_path / "out.tflite", images=shapes, scheme="int8", ranges="mean", correct="none"
    )
    assert result.budget_met
    assert result.chosen.kept_float


def test_layers_by_name(shapes_graph: Graph, shapes: Path, tmp_path: Path) -> None:
    path, out = tmp_path / "shapes.tflite", tmp_path / "out.tflite"
    writer.write(shapes_graph, path)
    name = file.read(path).operators[0].name
    result = slimseg.quantize(
        path, out=out, images=shapes, scheme="int8", ranges="mse", correct="none", keep_float=name
    )
    assert [row.kept_float for row in result.candidates] == [(), (name,)]
    assert not result.sensitivities
    with pytest.raises(UserError, match=f"`keep_float` {name}x: there is no such layer; the nearest name is {name}"):
        slimseg.quantize(path, out=out, images=shapes, scheme="int8", ranges="mse", keep_float=[f"{name}x"])


def test_sensitivities_alone(shapes_graph: Graph, shapes: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.tflite"
    result = slimseg.quantize(
        shapes_graph,
        out=out,
        images=shapes,
        scheme="int8",
        ranges="mse",
        correct="none",
        keep_float="none",
        sensitivity=True,
    )
    assert len(result.sensitivities) >= 7
    assert len(result.candidates) == 1


def test_names() -> None:
    assert mixed_precision.wanted("auto", {"float16"}) == "auto"
    assert mixed_precision.wanted("a, b,a", {"int8"}) == ("a", "b")
    with pytest.raises(UserError, match="names no layer"):
        mixed_precision.wanted(" , ", {"int8"})
    with pytest.raises(UserError, match="applies to int8 only, not to `scheme` float16"):
        mixed_precision.wanted("a", {"float16"})


def test_ever_more_up_to_half() -> None:
    ranked = [LayerSensitivity(str(place), 9.0 - place) for place in range(9)]
    assert [len(names) for names in mixed_precision._worst(ranked)] == [1, 2, 4]
    assert list(mixed_precision._worst([LayerSensitivity("only", 3.0)])) == [("only",)]
    assert not list(mixed_precision._worst([LayerSensitivity("fine", 0.0)]))
