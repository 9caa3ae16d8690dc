"""Tables on a console: the numbers are there, at 80 columns and without colours."""

from __future__ import annotations

import io
from collections.abc import Callable

from rich.console import Console

from slimseg.report import palette, terminal, units
from slimseg.results import Diagnosis, Evaluation, Profile, SlimResult


def shown(render: Callable[[Console], None]) -> str:
    console = Console(file=io.StringIO(), width=80, color_system=None)
    render(console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(len(line) for line in text.splitlines()) <= 80
    return text


def test_profile(before: Profile) -> None:
    text = shown(lambda console: terminal.show_profile(before, top=5, console=console))
    assert units.milliseconds(before.latency_ms) in text
    assert "not attributed" in text
    slowest = max(before.layers, key=lambda layer: layer.latency_ms)
    assert units.milliseconds(slowest.latency_ms) in text


def test_diagnosis_groups_by_need(diagnosis: Diagnosis) -> None:
    text = shown(lambda console: terminal.show_diagnosis(diagnosis, console=console))
    assert text.index("needs nothing") < text.index("no labels")
    verbose = shown(lambda console: terminal.show_diagnosis(diagnosis, verbose=True, console=console))
    assert all(refusal.layer in verbose for refusal in diagnosis.refusals)


def test_evaluation(evaluation: Evaluation) -> None:
    text = shown(lambda console: terminal.show_evaluation(evaluation, console=console))
    assert f"{evaluation.miou:.1f}" in text
    assert all(name in text for name in evaluation.class_iou)


def test_slim_says_what_was_missed(slim_result: SlimResult) -> None:
    text = shown(lambda console: terminal.show_slim(slim_result, console=console))
    assert units.times(slim_result.speedup) in text
    for check in slim_result.budget:
        assert check.got in text


def test_colours_are_distinct() -> None:
    for count in (2, 11, 40):
        colours = palette.colours([f"class {index}" for index in range(count)])
        assert len({tuple(colour) for colour in colours.tolist()}) == count
