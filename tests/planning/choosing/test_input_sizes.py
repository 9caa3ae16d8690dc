"""Which input size is taken follows from accuracy, time and what the rest of the plan can still save."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from slimseg.deployment import Deployment
from slimseg.graph.graph import Graph
from slimseg.planning.choosing.input_sizes import ChosenSize, InputSizes
from slimseg.planning.choosing.target import Target
from slimseg.planning.pricing import whatif
from slimseg.progress import Silent
from slimseg.results import Refusal
from slimseg.techniques.input_size import size_of

ANY = Target(None, None)


def choose(
    graph: Graph, max_drop: float, target: Target = ANY, accuracy: Callable[[Graph], float] = lambda graph: 50.0
) -> ChosenSize:
    return InputSizes(graph, accuracy, max_drop, target, Deployment(precision="int8"), Silent()).choose()


def height(graph: Graph) -> float:
    """An accuracy that falls with the size."""
    return float(graph.input_size[0])


def chosen_size(choice: ChosenSize) -> tuple[int, int]:
    (chosen,) = (trial for trial in choice.trials if trial.chosen)
    assert (choice.edit is None) == (chosen is choice.trials[0])
    assert choice.edit is None or size_of(choice.edit.site) == chosen.input_size
    return chosen.input_size


def test_without_a_target_the_fastest_that_is_accurate_enough(shapes_graph: Graph) -> None:
    smallest = choose(shapes_graph, max_drop=1.0)
    assert chosen_size(smallest) == min(trial.input_size for trial in smallest.trials)
    assert smallest.edit is not None
    assert smallest.edit.damage == 0.0
    dropping = choose(shapes_graph, max_drop=30.0, accuracy=height)
    assert chosen_size(dropping)[0] >= 128 - 30
    assert dropping.edit is not None
    assert dropping.edit.damage == 128 - chosen_size(dropping)[0]


def test_the_size_stays_where_every_other_costs_too_much(shapes_graph: Graph) -> None:
    def strict(graph: Graph) -> float:
        return 90.0 if graph.input_size == (128, 160) else 80.0

    choice = choose(shapes_graph, max_drop=1.0, accuracy=strict)
    assert chosen_size(choice) == (128, 160)
    assert len(choice.trials) == 2, "smaller ones than one that loses far too much are not tried"


@pytest.mark.parametrize("size_bytes", [None, 30_000])
def test_with_a_target_the_most_accurate_that_can_reach_it(shapes_graph: Graph, size_bytes: int | None) -> None:
    def size(latency_ms: float) -> tuple[int, int]:
        target = Target(lambda: latency_ms, size_bytes)
        return chosen_size(choose(shapes_graph, max_drop=100.0, target=target, accuracy=height))

    assert size(1e3) == (128, 160)
    assert size(1e-6)[0] < 80, "out of reach: the fastest"


def test_a_size_that_cannot_be_timed_is_refused(shapes_graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(graph: Graph, sites: Any, *_: Any) -> whatif.Priced:
        return whatif.Priced({}, tuple(Refusal(site.technique, site.layers[0], "no runtime") for site in sites))

    monkeypatch.setattr(whatif, "price", refused)
    choice = choose(shapes_graph, max_drop=100.0)
    assert choice.edit is None
    assert choice.trials == ()
    assert Refusal("input size", shapes_graph.input.name, "no runtime") in choice.refusals


def test_a_size_that_saves_no_time_is_refused(shapes_graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    def slower(graph: Graph, sites: Any, *_: Any) -> whatif.Priced:
        return whatif.Priced({site: whatif.Price(1.0, 1.5) for site in sites}, ())

    monkeypatch.setattr(whatif, "price", slower)
    choice = choose(shapes_graph, max_drop=100.0)
    assert choice.edit is None
    assert choice.refusals
    assert all("1.000 ms before and 1.500 ms after" in refusal.reason for refusal in choice.refusals)
