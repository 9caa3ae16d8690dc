"""A runtime that a user registers works with every command; no file of slimseg has heard of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from two_threads import TwoThreads

import slimseg
from slimseg.errors import ModelError, Unsupported, UserError
from slimseg.graph.graph import Graph
from slimseg.planning.choosing.budget import Budget
from slimseg.runtimes import child, end_to_end, host, registry
from slimseg.runtimes.litert.runtime import LITERT

NAME = TwoThreads.name


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    registry.register(TwoThreads())
    yield
    registry.unregister(NAME)


def test_it_is_profiled(shapes_graph: Graph, tmp_path: Path) -> None:
    assert slimseg.profile(shapes_graph, runs=3, runtime=NAME).threads == 2
    path = tmp_path / "shapes.lite2"
    registry.of(path).write(shapes_graph, path)
    assert slimseg.profile(path, runs=3).threads == 2  # its files are known by their suffix


def test_its_own_sessions_run(shapes_graph: Graph, tmp_path: Path) -> None:
    path = tmp_path / "shapes.lite2"
    registry.of(path).write(shapes_graph, path)
    before = child.shared().call("two_threads:opened_so_far")
    (found,) = end_to_end.time_in_app([path], np.zeros((128, 160, 3), np.uint8), (128, 160), rounds=1)
    assert found.whole_ms > 0
    assert child.shared().call("two_threads:opened_so_far") == before + 1


@pytest.mark.usefixtures("quick_timing")
@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_it_is_diagnosed(shapes_graph: Graph, precision: str) -> None:
    found = slimseg.diagnose(shapes_graph, precision=precision, runtime=NAME, time_limit_s=600)
    assert (found.deployment.runtime, found.precision) == (NAME, precision)
    assert any(each.basis == "what-if" for each in found.findings)


@pytest.mark.usefixtures("quick_timing")
def test_a_network_is_slimmed_and_exported_for_it(shapes_graph: Graph, shapes: Path, tmp_path: Path) -> None:
    result = slimseg.slim(shapes_graph, images=None, out=tmp_path / "run", budget=Budget(needs="nothing", runtime=NAME))
    assert (result.deployment.runtime, result.after.file) == (NAME, "model.lite2")
    assert "two threads" in result.host
    assert result.budget_met
    told = json.loads((tmp_path / "run" / "result.json").read_text())
    assert told["deployment"]["runtime"] == told["runtime"] == NAME
    made = slimseg.export(tmp_path / "run", out=tmp_path / "app", to="lite2,lite2:int8", images=shapes)
    assert not made.failed
    assert [each.files for each in made.card.artefacts] == [("model.lite2",), ("model_int8.lite2",)]
    assert [each.runtime for each in made.parities] == [NAME, NAME]
    assert all(each.disagreement_percent < 2.0 for each in made.parities)
    assert "LiteRT twice" in (tmp_path / "app" / "model_card.md").read_text()


def test_its_files_are_evaluated(shapes_graph: Graph, shapes: Path, tmp_path: Path) -> None:
    path = tmp_path / "shapes.lite2"
    registry.of(path).write(shapes_graph, path)
    found = [slimseg.evaluate(path, images=shapes), slimseg.evaluate(shapes_graph, images=shapes, runtime=NAME)]
    assert found[0].miou == found[1].miou == slimseg.evaluate(shapes_graph, images=shapes).miou


def test_its_files_are_quantised(shapes_graph: Graph, tmp_path: Path) -> None:
    float_path, path = tmp_path / "float.lite2", tmp_path / "int8.lite2"
    its = registry.of(path)
    its.write(shapes_graph, float_path, "full")
    quantiser = its.quantiser()
    quantiser.check(float_path)
    quantiser.quantise_int8(float_path, path, host.prepared(shapes_graph, [np.zeros((128, 160, 3), np.uint8)]))
    assert (its.precision(float_path), its.precision(path)) == ("float32", "int8")
    with pytest.raises(ModelError, match="already quantised"):
        quantiser.check(path)


def test_a_runtime_without_int8_says_so() -> None:
    with pytest.raises(Unsupported, match="slimseg does not write int8 for ncnn: its networks are deployed in float16"):
        registry.known("ncnn").quantiser()


def test_names_and_suffixes_are_taken_once() -> None:
    class Same(TwoThreads):
        name = "another"
        target = "another"

    with pytest.raises(ValueError, match=r"\.lite2: files with it belong to LiteRT twice"):
        registry.register(Same())
    with pytest.raises(ValueError, match="already"):
        registry.register(LITERT)


def test_without_it_nothing_knows_it(shapes_graph: Graph, tmp_path: Path) -> None:
    registry.unregister(NAME)
    try:
        with pytest.raises(UserError, match="must be one of litert, ncnn"):
            Budget(runtime=NAME)
        with pytest.raises(UserError, match="must be one of litert, ncnn"):
            slimseg.diagnose(shapes_graph, runtime=NAME, time_limit_s=600)
        with pytest.raises(ModelError, match="is not a file that a runtime can run"):
            registry.of(tmp_path / "model.lite2")
    finally:
        registry.register(TwoThreads())


@pytest.mark.parametrize(
    ("runtime", "precision", "told"),
    [
        ("coreml", None, "'coreml' must be one of litert, ncnn"),
        ("litert", "int4", "'int4' must be one that LiteRT has: float32 or int8"),
        ("ncnn", "int8", "'int8' must be one that ncnn has: float16"),
    ],
)
def test_words_that_are_none_are_refused(shapes_graph: Graph, runtime: str, precision: str | None, told: str) -> None:
    with pytest.raises(UserError, match=told):
        slimseg.diagnose(shapes_graph, precision=precision, runtime=runtime, time_limit_s=600)
    if precision is None:
        with pytest.raises(UserError, match=told):
            Budget(runtime=runtime)
