"""What a profile says by itself: each operator counted once, in the kind that says most about it."""

from __future__ import annotations

import itertools

import pytest

from slimseg.planning.pricing.observations import WORTH_SHARE, observe
from slimseg.results import Fallback, Finding, Island, LayerProfile, Profile, Roof


def layer(name: str, op: str, ms: float, macs: int = 0, bound: str = "", efficiency: float = 1.0) -> LayerProfile:
    return LayerProfile(
        name, op, "kernel", ms, 100.0, macs, 0, 1_000_000, (1, 64, 64, 16), least_ms=efficiency * ms, bound=bound
    )


def profile(*layers: LayerProfile, **more: object) -> Profile:
    return Profile("net", "litert", 1, 10, 100.0, 99.0, 101.0, 1, 0, 0, layers, **more)  # type: ignore[arg-type]


LAYERS = (
    layer("conv", "CONV_2D", 40.0, macs=10**9, bound="compute-bound"),
    layer("slow", "CONV_2D", 10.0, macs=10**7, bound="badly served", efficiency=0.1),
    layer("turn", "TRANSPOSE", 5.0),
    layer("relu", "RELU", 4.0, bound="memory-bound"),
    layer("add", "ADD", 3.0, bound="memory-bound"),
    layer("add2", "ADD", 2.0, bound="memory-bound"),
    layer("tiny", "CONCATENATION", 100 * WORTH_SHARE / 2),
    layer("norm", "L2_NORMALIZATION", 6.0),
    layer("to_float", "DEQUANTIZE", 1.0),
    layer("inside", "SIN", 1.0, macs=10**9),
    layer("to_int", "QUANTIZE", 1.5),
)


@pytest.fixture
def found() -> dict[str, Finding]:
    made = profile(
        *LAYERS,
        roofs=(Roof("float32", 100.0, "1x1", ((1000, 50.0), (10**9, 20.0))),),
        fallbacks=(Fallback("L2_NORMALIZATION", ("norm",), 6.0, 0.5, 100.0),),
        islands=(Island(("inside",), ("SIN",), 1.0, 2.5, 100.0),),
    )
    findings = observe(made)
    assert len({finding.technique for finding in findings}) == 6
    return {f"{finding.technique} {finding.layers[0]}": finding for finding in findings}


def test_kinds_and_what_they_could_save(found: dict[str, Finding]) -> None:
    saved = {name: finding.saving_ms for name, finding in found.items()}
    assert saved == pytest.approx(
        {
            "left to built-in kernels norm": 6.5,
            "float islands inside": 2.5,
            "transposes turn": 5.0,
            "activations of their own relu": 4.0,
            "badly served layers slow": 9.0,
            "more bytes moved than computed add": 5.0,
        }
    )


def test_an_operator_belongs_to_one_kind(found: dict[str, Finding]) -> None:
    for one, other in itertools.combinations(found.values(), 2):
        assert set(one.layers).isdisjoint(other.layers)


def test_they_say_that_no_edit_was_tried_and_where(found: dict[str, Finding]) -> None:
    for finding in found.values():
        assert finding.basis == "profile"
        assert finding.share == pytest.approx(finding.saving_ms / 100)
        assert finding.saving_ms == pytest.approx(finding.before_ms - finding.after_ms)
    moved = found["more bytes moved than computed add"]
    assert moved.layers == ("add", "add2")
    assert "(machine balance 5)" in moved.reason  # 100 GMAC/s over 20 GB/s
    assert "64x64x16" in moved.reason


def test_conversions_without_an_island_are_told_by_themselves() -> None:
    found = {finding.layers[0]: finding for finding in observe(profile(*LAYERS))}
    assert found["to_float"].technique == found["to_int"].technique == "quantise and dequantise"
    assert found["to_int"].saving_ms == 1.5


def test_a_file_that_computes_says_nothing() -> None:
    assert observe(profile(layer("conv", "CONV_2D", 90.0, macs=10**9, bound="compute-bound"))) == ()
