"""The table of schemes: every row with its number or its reason, at 80 columns and without colours."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from slimseg.report.files import to_json
from slimseg.report.quantisation import show_quantisation
from slimseg.results import BudgetCheck, LayerSensitivity, Profile, QuantisationResult, QuantisedFile

FLOAT = QuantisedFile("float32", "", 191.0, 191.0, 23_400_000, 62.43, 100.0)
INT8 = QuantisedFile("int8", "percentile", 32.2, 191.0, 6_140_000, 62.36, 99.1)
SLOW = QuantisedFile("int16x8", "minmax", 5195.0, 191.0, 6_230_000, reason="27x slower than float32: not measured")
NONE = QuantisedFile("dynamic", reason="the native runtime refused it")


@pytest.fixture
def result(full: Profile) -> QuantisationResult:
    return QuantisationResult(
        model="camvid_unet.pt2",
        file="out/int8.tflite",
        io="float32",
        baseline=FLOAT,
        candidates=(NONE, INT8, SLOW),
        chosen=INT8,
        verdict="int8 (ranges by percentile) is 5.93x as fast as float32",
        budget_met=True,
        budget=(BudgetCheck("max_drop", "at most 1 points", "0.07", True),),
        calibration_images=100,
        validation_images=101,
        fallbacks=full.fallbacks,
        islands=full.islands,
        seconds=100.0,
        host="here",
        notes=("3 images of a single colour were left out of calibration",),
    )


def shown(result: QuantisationResult) -> str:
    console = Console(file=io.StringIO(), width=80, color_system=None)
    show_quantisation(result, console=console)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(len(line) for line in text.splitlines()) <= 80
    return text


def row(text: str, start: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(start))


def test_rows(result: QuantisationResult) -> None:
    text = shown(result)
    assert row(text, "float32").split() == ["float32", "191", "ms", "23.4", "MB", "62.43"]
    assert row(text, "int8").split() == ["int8", "✓", "percentile", "32.2", "ms", "5.93×", "6.14", "MB", "62.36"]
    assert row(text, "int16x8").split()[-1] == "–"
    assert "dynamic: the native runtime refused it" in text
    assert "int16x8: 27x slower than float32: not measured" in text
    for wanted in (
        "Kept: int8",
        "ranges from 100 images",
        "accuracy on 101 images",
        "note: 3 images",
        "out/int8.tflite",
    ):
        assert wanted in text


def test_what_fell_off_the_delegate(result: QuantisationResult) -> None:
    """Islands of one kind are one row, however many there are."""
    text = shown(result)
    assert f"{len(result.islands)}× float PRELU" in text
    assert all(fallback.op in text for fallback in result.fallbacks)
    assert len(text.splitlines()) < 45
    assert "All operators run on XNNPACK" in shown(replace(result, fallbacks=(), islands=()))


def test_without_labels_and_a_missed_budget(result: QuantisationResult) -> None:
    unlabelled = replace(
        result,
        baseline=replace(FLOAT, miou=None),
        candidates=(replace(INT8, miou=None),),
        chosen=replace(INT8, miou=None),
        budget_met=False,
    )
    text = shown(unlabelled)
    assert "Agreed" in text
    assert "99.10" in row(text, "int8")
    assert "Budget not met" in text


def test_corrected_and_mixed(result: QuantisationResult) -> None:
    """At 80 columns, too, every number is there."""
    both = replace(INT8, corrected="equalise 64", miou=61.5)
    mixed = replace(INT8, corrected="equalise 64", kept_float=("stem", "head"), kept_cost_ms=0.314)
    layers = tuple(LayerSensitivity(f"layer{place}", 20.0 - place) for place in range(14))
    found = replace(
        result,
        candidates=(*result.candidates, both, mixed),
        chosen=mixed,
        sensitivities=(LayerSensitivity("stem", 31.25), *layers),
    )
    text = shown(found)
    assert row(text, "int8, 2 float ✓").split()[4:6] == ["percentile", "equalise"]
    assert row(text, "int8, 2 float ✓").split()[-1] == "62.36"
    assert "In float32, +0.31 ms compared with int8 for all layers: stem, head" in text
    assert row(text, "stem").split() == ["stem", "31.25", "in", "float32"]
    assert "and 5 less sensitive layers" in text
    assert "layer13" not in text
    assert "Corrected" not in shown(result)


def test_json_has_every_row(result: QuantisationResult) -> None:
    assert to_json(result).count('"scheme"') == 5
