"""Recovery on a network whose decoder was replaced."""

from __future__ import annotations

import math
import time
from pathlib import Path

import pytest
import torch

from slimseg.deployment import Deployment
from slimseg.graph.edit import at_input_size
from slimseg.graph.graph import Graph
from slimseg.planning.choosing.budget import Budget
from slimseg.planning.choosing.exact import PlannedEdit
from slimseg.planning.choosing.plan import Plan
from slimseg.planning.choosing.scores import logits_of
from slimseg.planning.running import recover as recipe
from slimseg.planning.running.recover import Recovery
from slimseg.progress import Bar, Silent
from slimseg.techniques import named
from slimseg.techniques.head import with_output
from slimseg.training import distil
from slimseg.training.batches import Batches
from slimseg.training.data import open_folder


class Notes(Silent):
    """Remembers what was trained."""

    def __init__(self) -> None:
        self.jobs: list[str] = []

    def bar(self, what: str, total: float) -> Bar:
        self.jobs.append(what)
        return super().bar(what, total)


def planned(graph: Graph, *wanted: tuple[str, str]) -> Plan:
    """The edits (layer, variant), one after another."""
    edits = []
    for layer, variant in wanted:
        techniques = [named("transposed convolution to resize"), named("separable convolution"), named("head")]
        site = next(
            site
            for technique in techniques
            for site in technique.find(graph).sites
            if layer in site.layers and site.variant == variant
        )
        graph = named(site.technique).apply(graph, site)
        edits.append(PlannedEdit(site, 1.0, 0.0))
    return Plan(graph, tuple(edits), ())


@pytest.fixture(scope="module")
def small_graph(shapes_graph: Graph) -> Graph:
    """The network at half its input size, where a step takes a quarter of the time."""
    return at_input_size(shapes_graph, (64, 80))


@pytest.fixture(autouse=True)
def _few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe, "MIMIC_STEPS", 15)
    monkeypatch.setattr(recipe, "DISTIL_STEPS", 10)


def run(
    original: Graph, plan: Plan, folder: Path, needs: str = "labels", seconds: float = 3600.0
) -> tuple[Graph, Notes]:
    student, notes = plan.graph.copy(), Notes()
    budget = Budget(needs=needs)  # type: ignore[arg-type]
    until = time.monotonic() + seconds
    recovery = Recovery(original, student, plan, open_folder(folder), budget, 0, notes)
    recovery.mimic_blocks(until)
    recovery.distil_whole(until)
    return student, notes


def mimicry(original: Graph, student: Graph, plan: Plan, folder: Path) -> float:
    torch.manual_seed(0)
    pairs = recipe._pairs(original, student, plan, Deployment())
    images = next(iter(Batches(student, open_folder(folder), False, 1, student.input_size))).images
    with torch.no_grad():
        return float(distil.mimic_loss(original, student, pairs)(distil.Batch(images)))


def test_new_blocks_learn_and_what_is_before_them_stays(
    small_graph: Graph, shapes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipe, "MIMIC_STEPS", 40)
    plan = planned(small_graph, ("up1", "3x3, bilinear"), ("up2", "3x3, bilinear"))
    student, notes = run(small_graph, plan, shapes)
    assert notes.jobs == ["mimicking blocks", "distilling"]
    before, after = (mimicry(small_graph, graph, plan, shapes) for graph in (plan.graph, student))
    assert after < 0.9 * before
    old, new = plan.graph.module.state_dict(), student.module.state_dict()
    moved = {name.partition(".")[0] for name in old if not torch.equal(old[name], new[name])}
    assert {name for name in moved if name.startswith(("down", "middle"))} == set()
    assert "join_0" in moved  # behind the first edit
    assert any(name.startswith("up1") for name in moved)
    assert not student.module.training


def test_the_original_is_left_alone(small_graph: Graph, shapes: Path) -> None:
    before = {name: value.clone() for name, value in small_graph.module.state_dict().items()}
    frozen = [parameter.requires_grad for parameter in small_graph.module.parameters()]
    run(small_graph, planned(small_graph, ("up2", "1x1, bilinear")), shapes)
    assert all(torch.equal(value, before[name]) for name, value in small_graph.module.state_dict().items())
    assert [parameter.requires_grad for parameter in small_graph.module.parameters()] == frozen


@pytest.mark.parametrize("kind", ["mask", "probabilities"])
def test_any_head_learns_from_logits(small_graph: Graph, shapes: Path, kind: str) -> None:
    plan = planned(with_output(small_graph, kind), ("up2", "1x1, bilinear"))  # type: ignore[arg-type]
    student, _ = run(small_graph, plan, shapes, needs="images")
    assert not torch.equal(student.module.classify.weight, plan.graph.module.classify.weight)
    assert student.description.output_kind == kind
    assert student(torch.zeros(1, 3, 64, 80)).shape == plan.graph(torch.zeros(1, 3, 64, 80)).shape


def test_a_resize_moved_behind_the_classifier_learns_with_the_whole(small_graph: Graph, shapes: Path) -> None:
    plan = planned(
        small_graph,
        ("up2", "1x1, bilinear"),
        ("classify", "resize behind the classifier"),
        ("classify", "reduced size"),
    )
    student, _ = run(small_graph, plan, shapes)
    assert student(torch.zeros(1, 3, 64, 80)).shape == (1, 3, 32, 40)


def test_no_time_no_training(small_graph: Graph, shapes: Path) -> None:
    plan = planned(small_graph, ("up2", "1x1, bilinear"))
    student, notes = run(small_graph, plan, shapes, seconds=-1)
    assert notes.jobs == []
    old = dict(plan.graph.module.named_parameters())
    assert all(torch.equal(value, old[name]) for name, value in student.module.named_parameters())


def test_logits_behind_any_end(shapes_graph: Graph) -> None:
    x = torch.randn(1, 3, 128, 160)
    expected = shapes_graph(x)
    assert logits_of(shapes_graph) is shapes_graph
    for kind in ("mask", "probabilities"):
        ended = with_output(shapes_graph, kind)  # type: ignore[arg-type]
        view = logits_of(ended)
        torch.testing.assert_close(view(x), expected)
        assert view.module.get_parameter("classify.weight") is ended.module.get_parameter("classify.weight")


def test_probabilities_without_a_softmax_are_taken_back(shapes_graph: Graph) -> None:
    graph = shapes_graph.copy()  # says that its logits were probabilities already
    graph.description = with_output(shapes_graph, "probabilities").description
    x = torch.randn(1, 3, 128, 160)
    back = logits_of(graph)(x)
    torch.testing.assert_close(back, graph(x).clamp(min=1e-6).log())
    assert math.isfinite(float(back.detach().sum()))


def test_what_training_takes_is_known_before_it_begins(small_graph: Graph, shapes: Path) -> None:
    plan = planned(small_graph, ("up2", "1x1, bilinear"))
    student = plan.graph.copy()
    recovery = Recovery(small_graph, student, plan, open_folder(shapes), Budget(needs="images"), 0, Silent())
    before = {name: value.clone() for name, value in student.module.state_dict().items()}
    assert recovery.leg_s() > 0
    assert all(torch.equal(value, before[name]) for name, value in student.module.state_dict().items())
    until = time.monotonic() + 60
    assert (recovery.mimic_blocks(until), recovery.distil_whole(until)) == (15, 10)
    assert recovery.distil_whole(time.monotonic() - 1, 1) == 0
    assert set(recovery.paces) == {"mimic", "distil"}


def test_what_training_will_take_follows_pixels_and_layers(
    shapes_graph: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 2.0] * 3)
    monkeypatch.setattr(recipe.time, "perf_counter", lambda: next(clock))
    whole, small, narrow = (
        recipe.expected_leg_s(shapes_graph, torch.zeros(2, 3, 128, 160), pixels, kept)
        for pixels, kept in ((1.0, 1.0), (0.25, 1.0), (1.0, 0.0))
    )
    assert whole == pytest.approx((15 + 10) * 8 * 1.0 * (1 + 3))
    assert small == pytest.approx(whole / 4)
    assert narrow == pytest.approx(whole / 4)
