"""Tables on a console: the numbers are there, at 80 columns and without colours."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace

import pytest
from rich.console import Console

from slimseg.report import palette, terminal, units, wording
from slimseg.results import Diagnosis, Evaluation, Profile, SlimResult


def shown(render: Callable[[Console], None], width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    render(console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(len(line) for line in text.splitlines()) <= width
    return text


def test_profile(before: Profile) -> None:
    text = shown(lambda console: terminal.show_profile(before, top=5, console=console))
    assert units.milliseconds(before.latency_ms) in text
    assert "not attributed" in text
    slowest = max(before.layers, key=lambda layer: layer.latency_ms)
    assert units.milliseconds(slowest.latency_ms) in text


def test_a_measured_profile(full: Profile) -> None:
    text = shown(lambda console: terminal.show_profile(full, top=5, console=console))
    assert len(text.splitlines()) < 45
    for wanted in ("459 GMAC/s", "16 to 32 GB/s", "54.6 MB of memory", "ready after 6.00 ms", "2 more"):
        assert wanted in text
    assert "Off XNNPACK: 5.97 ms, 49.5%" in text
    assert "in 2 pieces" in text
    assert "100 float islands of PRELU between integers: 1.00 ms for conversions (8.3%)" in text
    assert "Every layer" not in text


def test_statistics(full: Profile) -> None:
    text = shown(lambda console: terminal.show_profile(full, statistics=True, console=console))
    slowest = max(full.layers, key=lambda layer: layer.latency_ms).statistics
    table = text.partition("Every layer")[2]
    assert len(table.splitlines()) > len(full.layers)
    for value in (slowest.first_ms, slowest.average_ms, slowest.min_ms):
        assert f"{value:.3f}" in table


def test_long_names_lose_what_all_share(full: Profile) -> None:
    names = [f"__main__.NHWC/torch.nn.modules.conv.Conv2d_{i};1" for i in range(len(full.layers))]
    layers = tuple(replace(layer, name=name) for layer, name in zip(full.layers, names, strict=True))
    text = shown(lambda console: terminal.show_profile(replace(full, layers=layers), top=3, console=console))
    assert "Conv2d_" in text
    assert "__main__" not in text


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("conv", "conv + norm, relu"),
        ("encoder_stage_3_block_1_conv", "block_1_conv + norm_of…k, relu"),
        ("c" * 40, "cc "),
    ],
)
def test_what_else_an_operator_computes(full: Profile, name: str, wanted: str) -> None:
    """As far as there is room behind the name."""
    slowest = max(full.layers, key=lambda layer: layer.latency_ms)
    long = "" if name == "conv" else "_of_the_block"
    named = replace(slowest, name=name, covers=(name, f"encoder/norm{long}", "encoder/relu"))
    profile = replace(full, layers=tuple(named if each is slowest else each for each in full.layers))
    text = shown(lambda console: terminal.show_profile(profile, top=3, console=console), width=112)
    assert wanted in text, text


def test_diagnosis_groups_by_need(diagnosis: Diagnosis) -> None:
    text = shown(lambda console: terminal.show_diagnosis(diagnosis, console=console))
    assert text.index("\nExact, needs nothing") < text.index("\nNeeds images, no labels")
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


@pytest.mark.parametrize(
    ("saving_ms", "error_ms", "told"),
    [
        (0.243, 0.013, "−0.24 ms ±0.01"),
        (101.8, 1.02, "−102 ms ±1"),
        (-0.02, 0.0042, "+0.020 ms ±0.004"),
        (9.0, 12.4, "−9.00 ms ±12"),
        (1.5, 0.00004, "−1.50 ms ±0.000"),
        (1.5, None, "−1.50 ms"),
    ],
)
def test_a_saving_is_told_with_its_error(saving_ms: float, error_ms: float | None, told: str) -> None:
    assert units.with_error(saving_ms, error_ms) == told


def test_long_layers_leave_room_for_what_was_saved(slim_result: SlimResult) -> None:
    edit = replace(
        slim_result.edits[0],
        technique="transposed convolution to depth to space",
        layers=("conv2d_transpose_4_conv2d_transpose",) * 5,
        predicted_saving_ms=0.059,
        realised_saving_ms=0.048,
        realised_error_ms=0.017,
    )
    text = shown(lambda console: terminal.show_slim(replace(slim_result, edits=(edit,)), console=console))
    assert "−0.059 ms  −0.048 ms ±0.02" in text


def test_colours_are_distinct() -> None:
    for count in (2, 11, 40):
        colours = palette.colours([f"class {index}" for index in range(count)])
        assert len({tuple(colour) for colour in colours.tolist()}) == count


@pytest.mark.parametrize(
    ("size_bytes", "said", "in_a_column"),
    [
        (25, "4.00× smaller", "4.00×"), (179, "1.79× larger", "1.79× larger"), (100, "1.00× smaller", "1.00×"),
    ],
)  # fmt: skip
def test_a_larger_file_is_never_called_smaller(
    slim_result: SlimResult, size_bytes: int, said: str, in_a_column: str
) -> None:
    before, after = (replace(slim_result.baseline, size_bytes=each) for each in (100, size_bytes))
    assert wording.size_change(before, after) == said
    assert wording.size_gain(before, after) == in_a_column
