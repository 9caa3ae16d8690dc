"""Candidates know what they lost, which bounds they keep, and which of two is the better."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from slimseg.deployment import Deployment
from slimseg.graph.graph import Graph
from slimseg.planning.choosing.budget import Budget
from slimseg.planning.choosing.exact import PlannedEdit
from slimseg.planning.choosing.plan import Plan
from slimseg.planning.running.candidate import Candidate
from slimseg.runtimes import deployed
from slimseg.techniques import named
from slimseg.training.metrics import Accuracy

ORIGINAL = Accuracy(60.0, 100.0)


@pytest.fixture
def make(shapes_graph: Graph, tmp_path: Path) -> Any:
    path = tmp_path / "model.tflite"
    path.write_bytes(bytes(2000))

    def candidate(accuracy: Accuracy, original: Accuracy = ORIGINAL, **budget: Any) -> Candidate:
        plan = Plan(shapes_graph, (), ())
        made = Budget(**budget)
        return Candidate(plan, shapes_graph, shapes_graph, path, path, accuracy, 3.0, original, made, Deployment())

    return candidate


def test_with_labels_points_are_lost_and_may_be_won(make: Any) -> None:
    assert make(Accuracy(58.5, 90.0)).drop == 1.5
    assert make(Accuracy(61.0, 90.0)).drop == -1.0
    (check,) = make(Accuracy(58.5, 90.0), max_drop=1.0).checks
    assert (check.wanted, check.got, check.met) == ("at most 1 points of mIoU", "1.50", False)


def test_without_labels_pixels_that_changed_class_are_lost(make: Any) -> None:
    candidate = make(Accuracy(None, 97.0), Accuracy(None, 100.0), max_drop=4.0)
    assert candidate.drop == 3.0
    assert candidate.checks[0].wanted == "at most 4 % of pixels changed"
    assert candidate.holds


def test_what_is_far_beyond_the_drop_comes_last(make: Any) -> None:
    """Small, fast and ruined is no result: the file that is too large and keeps its accuracy is nearer."""
    small_and_ruined = make(Accuracy(45.9, None), max_drop=1.0, max_size_bytes=3000, min_speedup=2.0)
    large_and_good = make(Accuracy(59.9, None), max_drop=1.0, max_size_bytes=1000, min_speedup=16.0)
    assert [check.met for check in small_and_ruined.checks] == [False, True, True]
    assert large_and_good.rank > small_and_ruined.rank
    assert make(Accuracy(58.0, None)).rank > make(Accuracy(57.0, None)).rank


def test_a_near_miss_of_the_drop_counts_less_than_a_far_one_of_the_speed(make: Any) -> None:
    nearly = make(Accuracy(58.8, None), max_drop=1.0, min_speedup=3.0)
    accurate = make(Accuracy(60.0, None), max_drop=1.0, min_speedup=16.0)
    assert nearly.rank > accurate.rank


def test_a_plan_that_was_never_trained_must_keep_the_drop(make: Any, shapes_graph: Graph) -> None:
    site = named("separable convolution").find(shapes_graph).sites[0]
    plan = Plan(shapes_graph, (PlannedEdit(site, 1.0, 1.0),), ())
    trained = replace(make(Accuracy(58.8, None), max_drop=1.0), plan=plan)
    raw = replace(trained, trained=False)
    slower = make(Accuracy(58.8, None), max_drop=1.0, min_speedup=300.0)
    assert trained.rank > slower.rank > raw.rank
    assert replace(raw, accuracy=Accuracy(59.5, None)).holds


def test_what_is_told_of_it(make: Any, shapes_graph: Graph, tmp_path: Path) -> None:
    candidate = make(Accuracy(58.5, 90.0))
    deployed.write_float(shapes_graph, candidate.path)
    told = candidate.told(chosen=True)
    assert (told.form, told.trained, told.precision) == ("trained", True, "float32")
    assert (told.drop, told.budget_met, told.chosen) == (1.5, False, True)
    assert told.size_bytes == candidate.path.stat().st_size
