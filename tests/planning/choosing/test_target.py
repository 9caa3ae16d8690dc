"""What a plan aims at lies a little past what was asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from slimseg.deployment import Deployment
from slimseg.graph.graph import Graph
from slimseg.planning.choosing.budget import Budget
from slimseg.planning.choosing.target import MARGIN, Target
from slimseg.planning.pricing import whatif

INT8 = Deployment(precision="int8")


def test_the_latency_is_asked_for_each_time() -> None:
    answers = iter((10.0, 20.0))
    target = Target(lambda: next(answers), None)
    assert [target.wanted_ms(), target.wanted_ms()] == [10.0 / MARGIN, 20.0 / MARGIN]
    assert Target(None, None).wanted_ms() is None


def test_a_budgets_speed_is_a_share_of_the_original_files(shapes_graph: Graph, tmp_path: Path) -> None:
    path = whatif.written(shapes_graph, Deployment(), tmp_path / "original.tflite")
    target = Target.of(Budget(min_speedup=10.0, max_size_bytes=30_000), path)
    assert target.size_bytes == 30_000
    assert target.wanted_ms() == pytest.approx(whatif.file_latency_ms(path) / 10 / MARGIN, rel=0.7)
    assert Target.of(Budget(), path) == Target(None, None)


def test_bytes_too_many_are_those_of_the_file(shapes_graph: Graph, tmp_path: Path) -> None:
    size = whatif.written(shapes_graph, INT8, tmp_path / "whole.tflite").stat().st_size
    assert Target(None, 30_000).excess_bytes(shapes_graph, INT8) == pytest.approx(size - 30_000 / MARGIN, abs=64)
    assert (Target(None, 1_000_000).excess_bytes(shapes_graph, INT8) or 0) < 0
    assert Target(None, None).excess_bytes(shapes_graph, INT8) is None
