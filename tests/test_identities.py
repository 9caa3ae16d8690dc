"""No impossible number: what results say of their own times holds, on a machine with other work to do as well.

The machine's disturbances are drawn: runs that lose the processor, and a while in which everything takes five times as
long. What is asserted holds whatever the clock says.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from identities import contradictions, of_text
from rich.console import Console
from torch import nn

import slimseg
from slimseg import ratios
from slimseg.deployment import Deployment
from slimseg.frontends import load
from slimseg.graph.graph import Graph
from slimseg.planning.choosing.budget import Budget
from slimseg.planning.pricing import steady
from slimseg.planning.pricing.steady import Steady
from slimseg.report import terminal, units
from slimseg.report.files import to_json
from slimseg.report.html import render_report
from slimseg.results import (
    Diagnosis,
    Disturbance,
    ExportResult,
    Finding,
    Profile,
    QuantisationResult,
    Result,
    SlimResult,
)
from slimseg.runtimes import benchmark, calm, child
from slimseg.runtimes.benchmark import Timing
from slimseg.runtimes.litert.profiling import profiler
from slimseg.runtimes.litert.profiling.events import Recorder
from slimseg.runtimes.litert.profiling.trace import BUILTIN, DELEGATED, TOTAL, Event

T = TypeVar("T")
SECONDS = 0.02  # of timing
PATIENCE_MS = 60.0  # for disturbed runs
SLICE_MS = 4.0
DRIFT = 5.0
PERIOD = 60  # runs, of which a third are in the slow while


class Disturbances:
    """What other work does to each run in turn."""

    def __init__(self) -> None:
        self.random = np.random.default_rng(0)
        self.runs = 0

    def draw(self) -> tuple[float, float]:
        """How many times longer a run takes, and the milliseconds that it loses."""
        self.runs += 1
        taken_ms = SLICE_MS * float(self.random.geometric(0.5)) if self.random.random() < 0.6 else 0.0
        return DRIFT if self.runs % PERIOD > 2 * PERIOD // 3 else 1.0, taken_ms


@pytest.fixture(scope="module")
def loaded_machine() -> Iterator[None]:
    """Every time that is taken, by the clock and by LiteRT's profiler, is of a machine with other work to do.

    Files are timed for an instant: what is asserted holds of any times.
    """
    machine, timed, events = Disturbances(), calm.timed, Recorder.events
    time_files, time_steadily = benchmark.time_files, steady.time_files

    def disturbed(run: Callable[[], T], threads: int = 1) -> tuple[T, float, float]:
        slower, more_ms = machine.draw()
        result, spent_ms, taken_ms = timed(run, threads)
        return result, slower * spent_ms + more_ms, slower * taken_ms + (more_ms if threads == 1 else 0.0)

    def disturbed_events(recorder: Recorder) -> list[Event]:
        slower, more_ms = machine.draw()
        found = events(recorder)
        kernels = [index for index, event in enumerate(found) if event.type in (BUILTIN, DELEGATED)]
        hit = int(machine.random.choice(kernels)) if more_ms else -1
        more_us = [1e3 * more_ms * (index == hit or event.type == TOTAL) for index, event in enumerate(found)]
        return [
            replace(event, elapsed_us=int(slower * event.elapsed_us + more))
            for event, more in zip(found, more_us, strict=True)
        ]

    def here(_: child.Child, target: str, *args: Any, **__: Any) -> Any:
        kind, value = child.pickle.loads(child._answer(child.pickle.dumps((target, args))))
        if kind == "value":
            return value
        raise value if kind == "slimseg" else AssertionError(value)

    def quickly(paths: Any, threads: int = 1, seconds_per_file: float = 1.0, **more: Any) -> tuple[Timing, ...]:
        return time_files(paths, threads, SECONDS, **more)

    def steadily(paths: Any, seconds: float, *more: Any, **how: Any) -> Steady:
        return time_steadily(paths, SECONDS, *more, **how)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(benchmark, "time_files", quickly)
        patch.setattr(steady, "time_files", steadily)
        patch.setattr(steady, "FEWEST_LOADS", 2)
        patch.setattr(calm, "timed", disturbed)
        patch.setattr(Recorder, "events", disturbed_events)
        patch.setattr(child.Child, "call", here)
        patch.setattr(profiler, "_PROBE_ROUNDS", 1)
        patch.setattr(calm, "PATIENCE_MS", PATIENCE_MS)
        yield


@pytest.fixture(scope="module")
def graph() -> Graph:
    """Something to find for most techniques, in a few small layers."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 16, 3, 1, 1), nn.PReLU(16),
        nn.ConvTranspose2d(16, 8, 4, 2, 1), nn.Hardswish(), nn.Conv2d(8, 2, 1), nn.Softmax(1),
    )  # fmt: skip
    return load(net, (64, 96), mean=127.0, std=128.0, output_kind="probabilities")


@pytest.fixture(scope="module")
def profile(loaded_machine: None, graph: Graph) -> Profile:
    return slimseg.profile(graph, runs=20)


@pytest.fixture(scope="module")
def diagnosis(loaded_machine: None, graph: Graph) -> Diagnosis:
    return slimseg.diagnose(graph, time_limit_s=600)


@pytest.fixture(scope="module")
def slimmed(loaded_machine: None, graph: Graph, tmp_path_factory: pytest.TempPathFactory) -> SlimResult:
    return slimseg.slim(graph, images=None, out=tmp_path_factory.mktemp("slim") / "run", budget=Budget(needs="nothing"))


@pytest.fixture(scope="module")
def quantised(loaded_machine: None, graph: Graph, tmp_path_factory: pytest.TempPathFactory) -> QuantisationResult:
    return slimseg.quantize(graph, out=tmp_path_factory.mktemp("quantised") / "small.tflite")


@pytest.fixture(scope="module")
def exported(loaded_machine: None, graph: Graph, tmp_path_factory: pytest.TempPathFactory) -> ExportResult:
    return slimseg.export(graph, out=tmp_path_factory.mktemp("export") / "app", to="tflite", compared=2)


RESULTS = ("profile", "diagnosis", "slimmed", "quantised", "exported")


@pytest.mark.parametrize("name", RESULTS)
def test_nothing_contradicts_itself(name: str, request: pytest.FixtureRequest) -> None:
    result: Result = request.getfixturevalue(name)
    assert contradictions(result.as_dict()) == []
    assert contradictions(json.loads(to_json(result))) == []


@pytest.mark.parametrize("name", RESULTS)
def test_the_disturbance_is_said(name: str, request: pytest.FixtureRequest) -> None:
    disturbed: Disturbance | None = request.getfixturevalue(name).disturbed
    assert disturbed is not None
    assert disturbed.taken_share > 0.1
    assert disturbed.disturbed_share > 0.3
    assert json.loads(to_json(request.getfixturevalue(name)))["disturbed"]["said"] == disturbed.said


def shown(show: Callable[..., None], result: Result, **options: Any) -> str:
    console = Console(file=io.StringIO(), width=160, color_system=None)
    show(result, console=console, **options)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    assert "other work disturbed the timing" in " ".join(text.split())
    return text


@pytest.mark.parametrize("statistics", [False, True])
def test_a_printed_profile(profile: Profile, statistics: bool) -> None:
    text = shown(terminal.show_profile, profile, statistics=statistics)
    layers = text.partition("end to end")[0]
    assert layers.count("%") > 3
    assert of_text(layers, units.milliseconds(profile.latency_ms)) == []
    kinds = text.partition("By kind of kernel")[2].partition("all kernels")
    assert of_text(kinds[0], units.milliseconds(sum(each.total_ms for each in profile.node_types))) == []


@pytest.mark.parametrize("verbose", [False, True])
def test_a_printed_diagnosis(diagnosis: Diagnosis, verbose: bool) -> None:
    text = shown(terminal.show_diagnosis, diagnosis, verbose=verbose)
    assert text.count("%") > 3
    assert of_text(text, units.milliseconds(diagnosis.latency_ms)) == []


def test_a_printed_slim(slimmed: SlimResult, profile: Profile) -> None:
    shown(terminal.show_slim, slimmed)
    page = render_report(slimmed, profile, profile)
    assert "other work disturbed the timing" in page
    assert ">interaction<" not in page  # what was saved is what the edits saved


def test_the_checker_sees_what_it_is_for() -> None:
    """What loaded machines once made results say."""
    assert of_text("−0.84 ms   15.2%  depth to space\n−0.92 ms   39.6%  resize", "2.32 ms") != []
    assert of_text("−0.92 ms   39.6%  resize", "2.32 ms") == []
    profile = {
        "latency_ms": 2.24, "latency_p10_ms": 2.2, "latency_p90_ms": 2.3, "unattributed_ms": 1.74, "fallbacks": (),
        "islands": (), "kernels": ({"layer": 0, "statistics": {"average_ms": 1.47}},),
        "layers": (
            {"name": "a", "latency_ms": 0.5, "whole_ms": 2.24, "statistics": {"average_ms": 0.5, "times_called": 1}},
        ),
        "node_types": ({"count": 1, "average_ms": 1.47, "total_ms": 1.47, "share": 1.0},),
    }  # fmt: skip
    (wrong,) = contradictions(profile)
    assert "kernels take 1.47 ms, their layers 0.5, the network 2.24" in wrong


def test_edits_add_up_at_one_pace() -> None:
    """An int8 edit of −2.71 ms in a network of 2.27 ms came of two runs of different paces."""
    quantising = Steady.of_loads([(5.0, 2.5), (25.0, 12.5)])  # everything once took five times as long
    edits = Steady.of_loads([(10.0, 9.0, 6.0), (10.0, 9.0, 6.0)])
    first, second = steady.in_line([quantising, edits])
    assert first.latencies_ms == pytest.approx((5.0, 2.5))
    assert second.latencies_ms == pytest.approx((2.5, 2.25, 1.5))
    assert sum(first.savings_ms) + sum(second.savings_ms) == pytest.approx(5.0 - 1.5)


def test_savings_of_parts_that_overlap_are_not_more_than_there_is() -> None:
    assert ratios.together([6.0, 6.0], [8.0, 8.0], 10.0) == pytest.approx(7.5)
    assert ratios.together([3.0, 3.0], [4.0, 4.0], 10.0) == 6.0
    assert ratios.together([], [], 10.0) == 0.0


@pytest.mark.parametrize(
    ("value", "bound", "told"),
    [
        (15.96, 16.0, "15.96"),
        (16.2, 16.0, "16.2"),
        (16.0, 16.0, "16.0"),
        (4.0000001, 4.0, "4.0000001"),
        (-0.0, 1.0, "0.0"),
    ],
)
def test_what_misses_a_bound_does_not_read_as_if_it_held_it(value: float, bound: float, told: str) -> None:
    assert ratios.beside(value, bound, 1) == told


def test_a_difference_within_its_error_is_none() -> None:
    noise = Finding("t", ("a",), "nothing", 1.0, 0.97, 10.0, "because", error_ms=0.02)
    assert not noise.is_measurable
    assert replace(noise, error_ms=0.01).is_measurable
    found = Diagnosis("net", Deployment(), 10.0, (noise,), ())
    console = Console(file=io.StringIO(), width=80, color_system=None)
    terminal.show_diagnosis(found, verbose=True, console=console)
    assert "no measurable difference: within ±0.040 ms" in console.file.getvalue()  # type: ignore[attr-defined]
