"""Files over many loads: means, errors, and when it is enough."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from slimseg.graph import edit
from slimseg.graph.graph import Graph
from slimseg.planning.pricing import steady
from slimseg.planning.pricing.steady import Steady, time_files
from slimseg.progress import Silent
from slimseg.runtimes import benchmark
from slimseg.runtimes.litert.writing import writer


@pytest.fixture
def two(shapes_graph: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """A network, and itself at half its size."""
    monkeypatch.setattr(steady, "FEWEST_LOADS", 3)
    paths = [tmp_path / name for name in ("whole.tflite", "half.tflite")]
    writer.write(shapes_graph, paths[0])
    writer.write(edit.at_input_size(shapes_graph, (64, 80)), paths[1])
    return paths


def test_files_are_told_apart(two: list[Path]) -> None:
    found = time_files(two, 0.0, Silent())
    assert len(found.loads_ms) == 3  # the fewest, whatever the time
    whole_ms, half_ms = found.latencies_ms
    assert 0 < half_ms < whole_ms
    assert found.savings_ms == pytest.approx((whole_ms - half_ms,))
    assert found.errors_ms == (0,), "loads that are alike leave no error"


def test_enough_ends_it(two: list[Path]) -> None:
    seen: list[int] = []

    def enough(found: Steady) -> bool:
        seen.append(len(found.loads_ms))
        return len(found.loads_ms) == 5

    assert len(time_files(two, 1000.0, Silent(), enough).loads_ms) == 5
    assert seen == [3, 4, 5]


def test_a_saving_is_known_when_its_error_is_small_beside_it() -> None:
    assert steady.all_known(Steady(((10.0, 8.0), (10.0, 7.9))))
    assert not steady.all_known(Steady(((10.0, 8.0), (10.0, 7.0))))
    assert not steady.all_known(Steady(((10.0, 8.0),)))
    assert not steady.known(0.0, 0.001)


def test_errors_are_of_the_differences_within_a_load() -> None:
    """A load that is slower for all files tells nothing about what one saves over the other."""
    found = Steady(((10.0, 8.0, 8.0), (20.0, 18.0, 18.3)))
    assert found.latencies_ms == pytest.approx((15.0, 13.0, 13.15))
    assert found.savings_ms == pytest.approx((2.0, -0.15))
    assert found.errors_ms == pytest.approx((0.0, 0.15))


def test_one_load_says_nothing_of_its_error() -> None:
    assert Steady(((2.0, 1.0),)).errors_ms == (math.inf,)
    assert Steady(((2.0, 1.0),)).known_errors_ms is None


def test_disturbed_rounds_do_not_count() -> None:
    assert steady.quiet_ms(benchmark.Timing.of("file", [1.0, 1.2] * 3 + [9.0] * 5)) == pytest.approx(1.1)
    assert steady.quiet_ms(benchmark.Timing.of("file", [3.0])) == 3.0
