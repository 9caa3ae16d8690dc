"""Every part of a run has its share of the time, whatever the parts before it took."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import zeros

from slimseg.deployment import Deployment
from slimseg.graph.graph import Graph
from slimseg.planning.choosing import exact, sensitivity
from slimseg.planning.choosing.budget import Budget
from slimseg.planning.choosing.exact import ExactEdits, PlannedEdit, same_kind
from slimseg.planning.choosing.planner import Evidence, Planner
from slimseg.planning.choosing.target import Target
from slimseg.planning.pricing import whatif
from slimseg.planning.pricing.alike import price_alike
from slimseg.planning.pricing.whatif import Price
from slimseg.planning.running import time_plan
from slimseg.planning.running.time_plan import TimePlan
from slimseg.progress import Silent
from slimseg.techniques import REWRITES, Site
from slimseg.techniques.separable import Separable

LONG_AGO = 0.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that it is, to be changed."""
    now = [1000.0]
    monkeypatch.setattr(time_plan.time, "monotonic", lambda: now[0])
    return now


def test_training_has_time_left_when_planning_ends(clock: list[float]) -> None:
    plan = TimePlan(started=1000.0, limit_s=1000.0)
    assert plan.training_until == 1900.0
    assert plan.untrained_until() == 1180.0
    clock[0] = 1180.0
    assert plan.planning_until() == 1180.0 + 0.4 * 720
    assert plan.training_s == pytest.approx(1900.0 - plan.planning_until())
    clock[0] = 5000.0
    assert plan.left_s == plan.training_s == 0


@pytest.mark.parametrize("training_s", [1.0, 100.0, 5000.0])
def test_the_limit_that_is_advised_is_enough(clock: list[float], training_s: float) -> None:
    clock[0] += 77.0
    enough_s = TimePlan(1000.0, 60.0).enough_s(training_s)
    assert enough_s % 60 == 0
    assert TimePlan(1000.0, enough_s).training_s >= training_s
    assert TimePlan(1000.0, enough_s - 60).training_s < training_s


def test_what_ifs_stop_when_time_is_over(shapes_graph: Graph) -> None:
    sites = Separable().find(shapes_graph).sites
    priced = price_alike(shapes_graph, sites, Deployment(), Silent(), until=LONG_AGO)
    assert priced.prices == {}
    assert len(priced.refusals) == len(sites)
    assert {refusal.reason for refusal in priced.refusals} == {whatif.NO_TIME}


def test_what_ifs_that_would_not_end_in_time_do_not_begin(
    shapes_graph: Graph, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    timed: list[Path] = []

    def five_seconds_each(before: Path, afters: dict[Site, Path], *_: object) -> dict[Site, Price]:
        clock[0] += 5.0 * (1 + len(afters))
        timed.extend(afters.values())
        return {}

    monkeypatch.setattr(whatif, "MOST_TOGETHER", 1)
    monkeypatch.setattr(whatif, "_pair", lambda graph, site, files: (Path("before"), Path(site.target)))
    monkeypatch.setattr(whatif, "_timed", five_seconds_each)
    sites = Separable().find(shapes_graph).sites
    assert len(sites) > 2
    priced = whatif.price(shapes_graph, sites, Deployment(), Silent(), until=clock[0] + 25.0)
    assert (len(timed), clock[0]) == (2, 1020.0)
    assert len(priced.refusals) == len(sites) - 2


def test_sensitivities_stop_when_time_is_over(shapes_graph: Graph) -> None:
    sites = Separable().find(shapes_graph).sites[:2]
    images = zeros(1, 3, *shapes_graph.input_size)
    assert sensitivity.damage(shapes_graph, sites, images, Silent(), LONG_AGO) == {}
    assert len(sensitivity.damage(shapes_graph, sites, images, Silent())) == 2


def test_exact_edits_stop_when_time_is_over(shapes_graph: Graph) -> None:
    found = ExactEdits(shapes_graph, REWRITES, Deployment(), Silent(), same_kind, LONG_AGO).run()
    assert (found.graph, found.edits) == (shapes_graph, [])


def test_a_round_that_does_not_pay_is_not_halved_when_time_is_over(shapes_graph: Graph) -> None:
    found = ExactEdits(shapes_graph, REWRITES, Deployment(), Silent(), lambda *_: "it does harm", LONG_AGO)
    of_layers = {site.layers: PlannedEdit(site, 1.0, 0.0) for site in Separable().find(shapes_graph).sites}
    found._make(list(of_layers.values())[:2])
    assert (found.graph, found.edits) == (shapes_graph, [])
    assert [refusal.reason.endswith(exact.NO_TIME) for refusal in found.refusals] == [True, True]


def test_a_plan_without_time_is_the_network_as_it_is(shapes_graph: Graph) -> None:
    def asked(_: Graph) -> float:
        raise AssertionError("nothing is measured any more")

    evidence = Evidence(lambda graph: zeros(1, 3, *graph.input_size), asked, asked)  # type: ignore[arg-type, return-value]
    target = Target(lambda: 1e-3, None)
    planner = Planner(shapes_graph, Budget(min_speedup=8.0), Deployment(), target, evidence, Silent(), LONG_AGO)
    plan = planner.plan()
    assert plan.edits == plan.rewrites == plan.input_sizes == ()
    assert all(refusal.reason for refusal in plan.refusals)
