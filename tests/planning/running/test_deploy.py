"""Files and the numbers that count: savings of single edits add up to the whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slimseg.deployment import Deployment
from slimseg.graph.graph import Graph
from slimseg.planning.choosing.exact import PlannedEdit
from slimseg.planning.running import deploy
from slimseg.progress import Silent
from slimseg.runtimes import deployed, host
from slimseg.runtimes.litert.runtime import LITERT
from slimseg.techniques import Settings, Site, named
from slimseg.techniques.groups import Groups
from slimseg.tflite import file
from slimseg.training.metrics import Accuracy

IMAGES = [np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)]


def planned(graph: Graph) -> list[PlannedEdit]:
    edits = []
    for technique, layer in (("transposed convolution to resize", "up2"), ("separable convolution", "middle_0")):
        site = next(site for site in named(technique).find(graph).sites if layer in site.layers)
        edits.append(PlannedEdit(site, 0.5, 0.0))
        graph = named(technique).apply(graph, site)
    return edits


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_savings_add_up(shapes_graph: Graph, tmp_path: Path, precision: Any) -> None:
    edits = planned(shapes_graph)
    stages = deploy.write_stages(shapes_graph, edits, tmp_path, IMAGES, Deployment(precision=precision), Silent())
    assert len(stages) == 2  # the original before them is there already
    kinds = [operator.op for operator in file.operators(stages[0])]
    assert kinds.count("TRANSPOSE_CONV") == 1  # the first edit is made
    assert "DEPTHWISE_CONV_2D" not in kinds  # the second is not
    assert file.read(stages[0]).operators[-2].dtype == precision
    stages_ms = [9.0, 6.5, 7.0]
    applied = deploy.realised(edits, stages_ms, (0.1, 0.2))
    assert [edit.layers for edit in applied] == [("up2", "up2_relu"), ("middle_0",)]
    assert [edit.realised_error_ms for edit in applied] == [0.1, 0.2]
    assert [edit.predicted_saving_ms for edit in applied] == [0.5, 0.5]
    assert [edit.realised_saving_ms for edit in applied] == [2.5, -0.5]
    assert sum(edit.realised_saving_ms for edit in applied) == stages_ms[0] - stages_ms[-1]
    corrected = deploy.in_place(edits, stages_ms)
    assert [(edit.predicted_saving_ms, edit.alone_saving_ms) for edit in corrected] == [(2.5, 0.5), (-0.5, 0.5)]


def test_without_edits_there_is_nothing_to_add(shapes_graph: Graph, tmp_path: Path) -> None:
    assert deploy.write_stages(shapes_graph, [], tmp_path, IMAGES, Deployment(), Silent()) == []
    assert deploy.realised([], [9.0]) == ()


def test_int8_carries_the_description(shapes_graph: Graph, tmp_path: Path) -> None:
    deployed.write_float(shapes_graph, tmp_path / "float.tflite")
    LITERT.quantiser().quantise_int8(
        tmp_path / "float.tflite", tmp_path / "int8.tflite", host.prepared(shapes_graph, IMAGES)
    )
    assert file.read_description(tmp_path / "int8.tflite") == shapes_graph.description
    sizes = [(tmp_path / name).stat().st_size for name in ("float.tflite", "int8.tflite")]
    assert sizes[1] < sizes[0] / 2


def test_a_summary_is_of_the_file(shapes_graph: Graph, tmp_path: Path) -> None:
    path = tmp_path / "float.tflite"
    deployed.write_float(shapes_graph, path)
    summary = deploy.summarise(shapes_graph, path, 3.0, 5.0, Accuracy(60.0, 99.0))
    assert summary.size_bytes == path.stat().st_size
    assert (summary.latency_ms, summary.end_to_end_ms, summary.miou) == (3.0, 5.0, 60.0)
    assert summary.params == sum(parameter.numel() for name, parameter in shapes_graph.module.named_parameters())


@pytest.mark.parametrize(("value", "told"), [(0.126, "0.13"), (-0.001, "0.00"), (-0.26, "-0.26")])
def test_points(value: float, told: str) -> None:
    assert deploy.points(value) == told


def test_settings_tell_exact_edits_apart_not_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Groups, "words", property(lambda _: "reworded"))
    plan = [
        PlannedEdit(Site("fewer groups", (layer,), "x", layer, "nothing", "", Groups(number)), 0.1, 0.0)
        for layer, number in (("a", 2), ("b", 2), ("c", 4))
    ]
    assert [[each.site.layers[0] for each in group] for group in deploy.grouped(plan)] == [["a", "b"], ["c"]]


class Fused(Settings):
    @property
    def words(self) -> str:
        return "fused"


def test_alike_exact_edits_are_one_line() -> None:
    def edit(technique: str, layer: str, needs: Any, saving_ms: float) -> PlannedEdit:
        return PlannedEdit(Site(technique, (layer,), "x", layer, needs, f"at {layer}", Fused()), saving_ms, 0.0)

    plan = [
        edit("activations", "a", "nothing", 0.1),
        edit("activations", "b", "nothing", 0.3),
        edit("separable", "c", "images", 1.0),
        edit("separable", "d", "images", 1.0),
    ]
    applied = deploy.realised(plan, [9.0, 8.5, 7.5, 7.0])
    assert [each.layers for each in applied] == [("a", "b"), ("c",), ("d",)]
    assert applied[0].predicted_saving_ms == pytest.approx(0.4)
    assert applied[0].realised_saving_ms == 0.5
    assert applied[0].reason == "fused: at b; 1 more of the same kind"
    assert applied[0].realised_error_ms is None


def test_what_a_plan_says_is_told_together_is_one_line() -> None:
    def edit(technique: str, layer: str, with_previous: bool = False) -> PlannedEdit:
        site = Site(technique, (layer,), "x", layer, "images", "")
        return PlannedEdit(site, 0.1, 0.0, with_previous=with_previous)

    plan = [edit("linear", "a"), edit("linear", "b", True), edit("linear", "c"), edit("separable", "d", True)]
    assert [[each.site.layers[0] for each in group] for group in deploy.grouped(plan)] == [["a", "b"], ["c"], ["d"]]
