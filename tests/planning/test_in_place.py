"""What becomes of edits that save no time where they stand; the stopwatch's answer is given here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from slimseg.graph import edit
from slimseg.graph.graph import Graph
from slimseg.planning import in_place
from slimseg.planning.exact import PlannedEdit
from slimseg.planning.in_place import InPlace
from slimseg.planning.plan import Plan
from slimseg.progress import Silent
from slimseg.runtimes import benchmark
from slimseg.runtimes.litert import writer
from slimseg.techniques import named


class Slower(InPlace):
    """Every edit is found to cost time."""

    def timed(self, plan: Plan) -> Plan:
        return replace(plan, edits=tuple(replace(each, predicted_saving_ms=-0.1) for each in plan.edits))


@pytest.fixture
def plan(shapes_graph: Graph) -> Plan:
    technique = named("separable convolution")
    site = next(site for site in technique.find(shapes_graph, {}).sites if "middle_0" in site.layers)
    return Plan(technique.apply(shapes_graph, site), (PlannedEdit(site, 0.5, 0.0),), ())


def test_an_edit_that_saves_no_time_goes(shapes_graph: Graph, plan: Plan) -> None:
    kept = Slower(shapes_graph, Path("start.tflite"), [], "int8", Silent()).paying(plan)
    assert kept.edits == ()
    assert "where it stands" in kept.refusals[0].reason


def test_it_stays_where_the_size_is_bounded_and_it_saves_bytes(shapes_graph: Graph, plan: Plan) -> None:
    places = Slower(shapes_graph, Path("start.tflite"), [], "int8", Silent(), size_is_bounded=True)
    assert [each.site for each in places.paying(plan).edits] == [each.site for each in plan.edits]


def test_stages_are_told_apart(shapes_graph: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network against itself at half its size, three loads of an instant each."""
    monkeypatch.setattr(in_place, "LOADS", 3)
    monkeypatch.setattr(in_place, "SECONDS", 0.3)
    stages = [tmp_path / name for name in ("whole.tflite", "half.tflite")]
    writer.write(shapes_graph, stages[0])
    writer.write(edit.at_input_size(shapes_graph, (64, 80)), stages[1])
    whole_ms, half_ms = InPlace(shapes_graph, stages[0], [], "float32", Silent()).time(stages)
    assert 0 < half_ms < whole_ms


def test_disturbed_rounds_do_not_count() -> None:
    timing = benchmark.Timing.of("file", [1.0] * 6 + [9.0] * 4)
    assert in_place._quiet_ms(timing) == 1.0
