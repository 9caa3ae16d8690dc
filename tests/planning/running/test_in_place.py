"""What becomes of edits that save no time where they stand; the stopwatch's answer is given here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from slimseg.deployment import Deployment
from slimseg.graph.graph import Graph
from slimseg.planning.choosing.exact import PlannedEdit
from slimseg.planning.choosing.plan import Plan
from slimseg.planning.running import deploy
from slimseg.planning.running.in_place import InPlace, Measured
from slimseg.progress import Silent
from slimseg.techniques import Site, named
from slimseg.techniques.channels import Channels

START_MS = 10.0


class Answered(InPlace):
    """Every edit is found to save as much, give or take as much."""

    answer = (-0.1, 0.01)

    def timed(self, plan: Plan) -> Measured:
        edits = tuple(replace(each, predicted_saving_ms=self.answer[0]) for each in plan.edits)
        savings_ms, errors_ms = ((each,) * len(edits) for each in self.answer)
        return Measured(replace(plan, edits=edits, start_ms=START_MS), savings_ms, errors_ms)


class Doubtful(Answered):
    answer = (0.04, 0.03)


class Small(Answered):
    answer = (0.04, 0.01)


class Loud(Answered):
    """On a busy machine."""

    answer = (0.4, 0.3)


@pytest.fixture
def plan(shapes_graph: Graph) -> Plan:
    technique = named("separable convolution")
    site = next(site for site in technique.find(shapes_graph).sites if "middle_0" in site.layers)
    return Plan(technique.apply(shapes_graph, site), (PlannedEdit(site, 0.5, 0.0),), ())


@pytest.mark.parametrize(
    ("kind", "said"), [(Answered, "-0.100"), (Doubtful, "0.040 ms, with a standard error of 0.030 ms")]
)
def test_an_edit_that_saves_no_time_goes(shapes_graph: Graph, plan: Plan, kind: type[InPlace], said: str) -> None:
    kept = kind(shapes_graph, Path("start.tflite"), [], Deployment(precision="int8"), Silent()).paying(plan)
    assert kept.edits == ()
    assert "in the whole network" in kept.refusals[0].reason
    assert said in kept.refusals[0].reason


@pytest.mark.parametrize("kind", [Small, Loud])
def test_a_small_saving_that_is_sure_counts_and_a_large_one_in_doubt(
    shapes_graph: Graph, plan: Plan, kind: type[InPlace]
) -> None:
    kept = kind(shapes_graph, Path("start.tflite"), [], Deployment(precision="int8"), Silent()).paying(plan)
    assert [each.site for each in kept.edits] == [each.site for each in plan.edits]
    assert kept.refusals == ()


def test_it_stays_where_the_size_is_bounded_and_it_saves_bytes(shapes_graph: Graph, plan: Plan) -> None:
    places = Answered(
        shapes_graph, Path("start.tflite"), [], Deployment(precision="int8"), Silent(), size_is_bounded=True
    )
    assert [each.site for each in places.paying(plan).edits] == [each.site for each in plan.edits]


def edits(*techniques: str) -> tuple[PlannedEdit, ...]:
    return tuple(
        PlannedEdit(Site(name, (f"layer{number}",), "", f"layer{number}", "images", ""), 0.1, 0.0)
        for number, name in enumerate(techniques)
    )


def told(planned: tuple[PlannedEdit, ...], savings_ms: tuple[float, ...], graph: Graph) -> list[int]:
    """Sizes of the groups that a plan is told in where every error is 0.01 ms."""
    rewrites = planned[-1:]  # wherever that comes from
    plan = Plan(graph, planned[:-1], (), rewrites, start_ms=START_MS)
    after = Measured(plan, savings_ms, (0.01,) * len(savings_ms)).told()
    assert [each.site for each in (*after.edits, *after.rewrites)] == [each.site for each in planned]
    assert len(after.rewrites) == 1
    again = Plan.as_dict(after)["edits"]
    assert [each["with_previous"] for each in again] == [each.with_previous for each in after.edits]
    return [len(group) for group in deploy.grouped((*after.edits, *after.rewrites))]


@pytest.mark.parametrize(
    ("techniques", "savings_ms", "sizes"),
    [
        ("aaaa", (1.0, 1.0, 1.0, 1.0), [1, 1, 1, 1]),  # all known
        ("aaaa", (0.2, 0.2, 1.0, 1.0), [2, 1, 1]),  # as few together as it takes
        ("aaaa", (1.0, 0.2, 0.05, 0.05), [4]),  # what is left goes to the one before
        ("abab", (0.1, 0.1, 0.1, 0.1), [1, 1, 1, 1]),  # never with another technique
        ("abbb", (0.1, 0.2, 0.2, 0.1), [1, 3]),
        ("aabb", (0.2, 0.2, 0.2, 0.2), [2, 2]),
        ("aaa", (0.2, -0.2, 0.5), [3]),  # nothing in sum: not known either
    ],
)
def test_neighbours_that_cannot_be_told_apart_are_told_together(
    techniques: str, savings_ms: tuple[float, ...], sizes: list[int], shapes_graph: Graph
) -> None:
    assert told(edits(*techniques), savings_ms, shapes_graph) == sizes


@pytest.mark.parametrize(("technique", "stays"), [("head", True), ("idle layers", False)])
def test_what_changes_the_hosts_work_stays(technique: str, stays: bool, shapes_graph: Graph) -> None:
    site = Site(technique, ("a",), "", "a", "nothing", "", whole=True)
    measured = Measured(Plan(shapes_graph, (PlannedEdit(site, 0.1, 0.0),), (), start_ms=START_MS), (-0.1,), (0.01,))
    assert (measured.lost() == []) == stays


def test_channels_are_one_group_and_stay(shapes_graph: Graph) -> None:
    plan = Plan(shapes_graph, edits(Channels.name, Channels.name), (), start_ms=START_MS)
    assert Measured(plan, (-1.0,), (0.1,)).lost() == []
    assert [each.with_previous for each in Measured(plan, (-1.0,), (0.1,)).told().edits] == [False, False]


def test_without_edits_nothing_is_timed(shapes_graph: Graph) -> None:
    plan = Plan(shapes_graph, (), ())
    places = InPlace(shapes_graph, Path("start.tflite"), [], Deployment(precision="int8"), Silent())
    assert places.paying(plan) == plan
