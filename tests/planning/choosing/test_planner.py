"""Plans for a small network: what is chosen follows from what is asked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from slimseg.commands.evaluate import Evaluator
from slimseg.deployment import Deployment
from slimseg.graph.graph import Graph
from slimseg.planning.choosing.budget import Budget
from slimseg.planning.choosing.choose import Option
from slimseg.planning.choosing.importance import measured
from slimseg.planning.choosing.plan import Plan
from slimseg.planning.choosing.planner import Evidence, Planner
from slimseg.planning.choosing.target import Target
from slimseg.planning.pricing import whatif
from slimseg.planning.running.baselines import deployed_precision
from slimseg.progress import Silent
from slimseg.techniques import Site
from slimseg.techniques.head import with_output
from slimseg.techniques.separable import Separable
from slimseg.techniques.upsampling import Upsampling
from slimseg.training.data import open_folder
from slimseg.training.losses import at_size

INT8 = Deployment(precision="int8")

ANY = Target(None, None)


@pytest.fixture(scope="module")
def evidence(shapes_graph: Graph, shapes: Path) -> Evidence:
    evaluator = Evaluator(open_folder(shapes), shapes_graph, Silent())
    images = evaluator.tensor(shapes_graph, 4)
    return Evidence(
        lambda graph: evaluator.tensor(graph, 2),
        lambda graph: evaluator.graph_accuracy(graph, 4),
        lambda graph: measured(graph, [at_size(images, graph.input_size)]),
    )


def plan(graph: Graph, evidence: Evidence, target: Target = ANY, effort: float = 1.0, **budget: Any) -> Plan:
    made = Budget(**budget)
    deployment = replace(made.deployment, precision=deployed_precision(made, 4.0, 0))
    return Planner(graph, made, deployment, target, evidence, Silent()).plan(effort)


def techniques(result: Plan) -> set[str]:
    return {edit.site.technique for edit in result.edits}


def test_without_a_target_everything_that_pays(shapes_graph: Graph, evidence: Evidence) -> None:
    result = plan(shapes_graph, evidence, max_drop=50.0)
    assert {"input size", "transposed convolution to resize"} <= techniques(result)
    (chosen,) = (trial for trial in result.input_sizes if trial.chosen)
    assert chosen.input_size == result.graph.input_size != shapes_graph.input_size
    assert all(edit.predicted_saving_ms > 0 for edit in result.edits)
    replaced = [layer for edit in result.edits for layer in edit.site.layers if edit.site.needs == "images"]
    assert len(replaced) == len(set(replaced))
    assert result.graph(torch.zeros(1, 3, *result.graph.input_size)).shape[1] == 3
    assert whatif.latency_ms(result.graph, INT8) < whatif.latency_ms(shapes_graph, INT8)


def test_exact_edits_only(shapes_graph: Graph, evidence: Evidence) -> None:
    result = plan(shapes_graph, evidence, needs="nothing")
    assert all(edit.site.needs == "nothing" and edit.damage == 0 for edit in result.edits)
    x = torch.randn(1, 3, 128, 160)
    torch.testing.assert_close(result.graph(x), shapes_graph(x))


def test_a_target_within_reach_asks_for_little(shapes_graph: Graph, evidence: Evidence) -> None:
    smaller_is_worse = replace(evidence, accuracy=lambda graph: float(graph.input_size[0]))
    assert plan(shapes_graph, smaller_is_worse, Target(lambda: 1e3, None), max_drop=50.0).edits == ()


def test_a_target_of_size_takes_parameters_away(shapes_graph: Graph, evidence: Evidence, tmp_path: Path) -> None:
    result = plan(shapes_graph, evidence, Target(lambda: 1e3, 30_000), max_drop=0.0)
    assert result.edits
    assert whatif.written(result.graph, INT8, tmp_path / "small.tflite").stat().st_size <= 30_000


def test_the_head_stays_of_the_kind_asked_for(shapes_graph: Graph, evidence: Evidence) -> None:
    result = plan(shapes_graph, evidence, needs="nothing", head="mask")
    assert result.graph.description.output_kind == "mask"
    assert result.graph(torch.zeros(1, 3, 128, 160)).shape == (1, 128, 160)
    masked = with_output(shapes_graph, "mask")
    back = plan(masked, evidence, needs="nothing", head="logits")
    assert back.graph.description.output_kind == "logits"


def test_edits_that_do_not_pay_are_reported(
    shapes_graph: Graph, evidence: Evidence, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slower(graph: Graph, sites: Any, *_: Any) -> whatif.Priced:
        return whatif.Priced({site: whatif.Price(1.0, 1.5) for site in sites}, ())

    monkeypatch.setattr(whatif, "price", slower)
    result = plan(shapes_graph, evidence, max_drop=0.0)
    assert result.edits == ()
    assert sum("1.000 ms before and 1.500 ms after" in refusal.reason for refusal in result.refusals) >= 6


@pytest.mark.parametrize(
    ("each_saves_ms", "taken"),
    [
        (1.0, 3),  # as the what-ifs say
        (1.6, 2),  # three would save more than is needed
        (3.1, 1),
        (0.8, 4),  # three save less than is needed
        (0.1, 5),  # all of them are too few
    ],
)
def test_as_few_approximations_as_the_whole_needs(
    shapes_graph: Graph, evidence: Evidence, monkeypatch: pytest.MonkeyPatch, each_saves_ms: float, taken: int
) -> None:
    sites: dict[tuple[str, ...], Site] = {}
    for technique in (Upsampling(), Separable()):
        for site in technique.find(shapes_graph).sites:
            sites.setdefault(site.layers, site)
    assert len(sites) == 5
    options = [Option(site, 1.0, 0, float(damage)) for damage, site in enumerate(sites.values(), 1)]
    planner = Planner(shapes_graph, Budget(), INT8, ANY, evidence, Silent())
    monkeypatch.setattr(Planner, "_kept", lambda _, applied: 1 - each_saves_ms * len(applied.edits) / 10)
    chosen = planner._approximations(options, 10.0, 3.0, None)
    assert [edit.damage for edit in chosen.edits] == [float(damage) for damage in range(1, taken + 1)]
