"""The machine's roof: friendly files reach more than unfriendly ones, and words follow from numbers."""

from __future__ import annotations

from pathlib import Path

import profile_zoo
import pytest

from slimseg.results import Roof
from slimseg.runtimes.litert.profiling import roof
from slimseg.runtimes.litert.profiling.profiler import profile
from slimseg.runtimes.litert.session import Session
from slimseg.tflite import file

ROOF = Roof("float32", 100.0, "any", ((1000, 50.0), (100_000, 80.0), (10_000_000, 10.0)))


def test_bandwidth_is_that_of_the_size() -> None:
    assert roof.bandwidth_at(ROOF, 500) == 80.0  # nothing small can be slower than something larger
    assert roof.bandwidth_at(ROOF, 100_001) == 10.0
    assert roof.bandwidth_at(ROOF, 1 << 40) == 10.0


@pytest.mark.parametrize(
    ("macs", "memory_bytes", "latency_ms", "word"),
    [
        (100_000_000, 1000, 1.2, "compute-bound"),
        (1000, 10_000_000, 1.5, "memory-bound"),
        (100_000_000, 1000, 9.0, "badly served"),
        (0, 10_000_000, 9.0, "badly served"),
        (100, 100, 0.001, "overhead"),
    ],
)
def test_words(macs: int, memory_bytes: int, latency_ms: float, word: str) -> None:
    assert roof.bound(roof.least_ms(ROOF, ROOF, macs, memory_bytes), latency_ms) == word


def test_without_a_roof_nothing_is_said() -> None:
    assert roof.bound(roof.least_ms(None, None, 100, 100), 1.0) == "overhead"


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_probes_are_what_they_say(precision: str, tmp_path: Path) -> None:
    for path, probe in roof.write_probes(precision, tmp_path).items():
        described = file.read(path)
        assert described.macs == probe.macs
        assert described.operators[0].dtype == precision
        assert sum(operator.memory_bytes for operator in described.operators) == pytest.approx(
            probe.memory_bytes, rel=0.01
        )
        session = Session(path)
        session.set_random()
        session.invoke()


def test_a_profile_against_the_roof(tmp_path: Path) -> None:
    result = profile(profile_zoo.network("ladder", "int8", tmp_path), runs=5)
    by_precision = {each.precision: each for each in result.roofs}
    assert set(by_precision) == {"float32", "int8"}
    for each in result.roofs:
        assert each.gmac_per_s > 1
        assert [size for size, _ in each.bandwidth] == sorted(size for size, _ in each.bandwidth)
    words = {layer.bound for layer in result.layers}
    assert words <= {"compute-bound", "memory-bound", "badly served", "overhead", "fused"}
    for layer in result.layers:
        assert (layer.bound == "fused") == (layer.kernel == "") == (layer.delegate == "")
        if layer.latency_ms:
            assert layer.gmac_per_s == pytest.approx(layer.macs / layer.latency_ms / 1e6)
            assert layer.gb_per_s == pytest.approx(layer.memory_bytes / layer.latency_ms / 1e6)
    fastest = max(layer.gmac_per_s for layer in result.layers)
    assert fastest < 100 * by_precision["int8"].gmac_per_s, "a unit is wrong; a busy machine may be 10 times too slow"
