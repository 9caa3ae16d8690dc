"""What becomes of edits that save no time where they stand; the stopwatch's answer is given here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from slimseg.graph.graph import Graph
from slimseg.planning.exact import PlannedEdit
from slimseg.planning.in_place import InPlace
from slimseg.planning.plan import Plan
from slimseg.progress import Silent
from slimseg.techniques import named


class Slower(InPlace):
    """Every edit is found to cost time."""

    def timed(self, plan: Plan) -> Plan:
        return replace(plan, edits=tuple(replace(edit, predicted_saving_ms=-0.1) for edit in plan.edits))


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
    assert [edit.site for edit in places.paying(plan).edits] == [edit.site for edit in plan.edits]
