"""Candidates are compared by how much of the budget they meet, then by what they lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from slimseg.graph.graph import Graph
from slimseg.planning.budget import Budget
from slimseg.planning.candidate import Candidate
from slimseg.planning.deploy import Accuracy
from slimseg.planning.plan import Plan

ORIGINAL = Accuracy(60.0, 100.0)


@pytest.fixture
def make(shapes_graph: Graph, tmp_path: Path) -> Any:
    path = tmp_path / "model.tflite"
    path.write_bytes(bytes(2000))

    def candidate(accuracy: Accuracy, original: Accuracy = ORIGINAL, **budget: Any) -> Candidate:
        plan = Plan(shapes_graph, (), ())
        made = Budget(**budget)
        return Candidate(plan, shapes_graph, shapes_graph, path, path, accuracy, 3.0, original, made)

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


def test_more_of_the_budget_counts_before_less_lost(make: Any) -> None:
    small_and_worse = make(Accuracy(50.0, None), max_drop=1.0, max_size_bytes=3000, min_speedup=2.0)
    large_and_better = make(Accuracy(58.0, None), max_drop=1.0, max_size_bytes=1000, min_speedup=2.0)
    assert [check.met for check in small_and_worse.checks] == [False, True, True]
    assert not small_and_worse.holds
    assert small_and_worse.rank > large_and_better.rank
    assert make(Accuracy(58.0, None)).rank > make(Accuracy(57.0, None)).rank
