"""A diagnosis as a reader sees it: variants folded, sites added up, the largest first, all of it with --verbose."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from slimseg.deployment import Deployment
from slimseg.report import findings, terminal
from slimseg.results import Diagnosis, Finding, Needs, Refusal


def finding(
    technique: str, layer: str, saving: float, variant: str = "", needs: Needs = "images", before: float = 10.0,
    layers_ms: float | None = 10.0, basis: str = "what-if",
) -> Finding:  # fmt: skip
    return Finding(
        technique, (layer,), needs, before, before - saving, 100.0, f"because of {layer}", variant,
        f"{technique} by X, 2016", layers_ms, basis,  # type: ignore[arg-type]
    )  # fmt: skip


FINDINGS = (
    finding("head", "softmax", 2.0, needs="nothing"),
    finding("separable", "a", 4.0, "rank 1"),
    finding("separable", "b", 6.0, "rank 1"),
    finding("separable", "b", 3.0, "rank 2"),
    finding("separable", "c", -1.0, "rank 1"),
    finding("input size", "x", 50.0, "64x64", before=100.0, layers_ms=None),
    finding("alignment", "d", 0.01, "up"),
    finding("dilation", "e", 1.5, needs="labels"),
    finding("badly served layers", "f", 30.0, basis="profile"),
)


def test_variants_of_a_site_exclude_each_other() -> None:
    groups = {group.technique: group for group in findings.grouped(FINDINGS)}
    separable = groups["separable"]
    assert [site.best.layers for site in separable.sites] == [("b",), ("a",), ("c",)]
    assert [other.variant for other in separable.sites[0].others] == ["rank 2"]
    assert len(separable.gaining) == 2
    assert separable.saving_ms == pytest.approx(10.0)  # the best of a and b, not what makes c slower
    assert separable.share == pytest.approx(0.1)


def test_noise_is_no_gain() -> None:
    groups = {group.technique: group for group in findings.grouped(FINDINGS)}
    assert not groups["alignment"].is_notable
    assert groups["head"].is_notable


def test_groups_by_need_then_saving() -> None:
    groups = findings.grouped(FINDINGS)
    assert [group.technique for group in groups] == [
        "head", "input size", "separable", "alignment", "badly served layers", "dilation",
    ]  # fmt: skip


def test_the_headline_is_about_this_network() -> None:
    """Not the input size, which helps every network, and nothing that no edit was tried for."""
    largest = findings.headline(findings.grouped(FINDINGS))
    assert [group.technique for group in largest] == ["separable", "head", "dilation"]


def shown(diagnosis: Diagnosis, verbose: bool = False) -> str:
    console = Console(file=io.StringIO(), width=80, color_system=None)
    terminal.show_diagnosis(diagnosis, verbose=verbose, console=console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(len(line) for line in text.splitlines()) <= 80
    return text


@pytest.fixture
def diagnosis() -> Diagnosis:
    refusals = tuple(Refusal("separable", f"layer{index}", f"reason {index}") for index in range(20))
    return Diagnosis("net", Deployment(), 100.0, FINDINGS, refusals, ("the file was opened in a way",))


def test_a_screen(diagnosis: Diagnosis) -> None:
    text = shown(diagnosis)
    assert text.index("Largest savings") < text.index("Exact, needs nothing") < text.index("Needs labels")
    assert "2 sites, the largest" in text
    assert "or rank 2" in text
    assert "1 more site gains nothing" in text
    assert "tried, but not faster: alignment" in text
    assert "at most" in text
    assert text.count("see separable by X, 2016") == 1  # not once for every site
    assert "note: the file was opened in a way" in text
    assert "20× separable: reason 0; 19 other reasons" in text


def test_verbose_leaves_nothing_out(diagnosis: Diagnosis) -> None:
    text = shown(diagnosis, verbose=True)
    assert all(f"because of {each.layers[0]}" in text for each in FINDINGS)
    assert all(refusal.layer in text and refusal.reason in text for refusal in diagnosis.refusals)


def test_a_diagnosis_of_hundreds_of_layers_fits_a_screen() -> None:
    many = [finding(f"technique {kind}", f"layer{index}", 1.0) for kind in range(6) for index in range(60)]
    refusals = tuple(Refusal("separable", f"layer{index}", "its channels are few") for index in range(300))
    text = shown(Diagnosis("net", Deployment(), 100.0, tuple(many), refusals))
    assert len(text.splitlines()) < 60
