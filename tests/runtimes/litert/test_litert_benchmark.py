"""Interleaved timing: more work takes longer, and a hundred tiny files are cheap."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from slimseg.errors import ModelError
from slimseg.runtimes.benchmark import Timing, ratio, time_files


def test_sixteen_times_the_pixels(build_tiny: Callable[..., Path], tmp_path: Path) -> None:
    small, large = (build_tiny(tmp_path / f"{size}.tflite", size=size) for size in (32, 128))
    a, b = time_files([small, large], seconds_per_file=0.3)
    assert (a.path, b.path) == (str(small), str(large))
    assert ratio(b, a) > 3
    for timing in (a, b):
        assert 0 < timing.min_ms <= timing.p10_ms <= timing.median_ms <= timing.p90_ms
        assert timing.runs >= len(timing.rounds_ms) >= 7


def test_a_file_is_as_fast_as_itself(tiny: Path) -> None:
    a, b = time_files([tiny, tiny], seconds_per_file=0.3)
    assert ratio(a, b) == pytest.approx(1, abs=0.4)


def test_many_tiny_files_in_one_call(tiny: Path) -> None:
    timings = time_files([tiny] * 100, seconds_per_file=0.01)
    assert len(timings) == 100
    assert max(len(timing.rounds_ms) for timing in timings) < 100


def test_rounds_can_be_fixed(tiny: Path) -> None:
    (timing,) = time_files([tiny], rounds=9)
    assert len(timing.rounds_ms) == 9


def test_a_missing_file(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none\.tflite cannot be opened"):
        time_files([tiny, tmp_path / "none.tflite"])


def test_percentiles() -> None:
    timing = Timing.of("a", [float(n) for n in range(1, 12)], repeats=3)
    assert (timing.p10_ms, timing.median_ms, timing.p90_ms, timing.min_ms, timing.runs) == (2, 6, 10, 1, 33)
