"""Findings: every site of every technique, priced, in the order of what it asks for."""

from __future__ import annotations

import pytest

import slimseg
from slimseg.graph.graph import Graph
from slimseg.planning import whatif
from slimseg.results import Diagnosis
from slimseg.techniques import TECHNIQUES
from slimseg.techniques.head import with_output


@pytest.fixture(autouse=True, scope="module")
def _quick() -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(whatif, "SECONDS_PER_FILE", 0.02)
        yield


@pytest.fixture(scope="module")
def found(shapes_graph: Graph) -> Diagnosis:
    return slimseg.diagnose(with_output(shapes_graph, "probabilities"))


def test_every_technique_and_site(found: Diagnosis) -> None:
    assert found.model == "shapes"
    assert found.precision == "float32"
    assert {finding.technique for finding in found.findings} == {technique.name for technique in TECHNIQUES}
    layers = {layer for finding in found.findings for layer in finding.layers}
    assert {"up1", "up2", "middle_0", "join_0"} <= layers
    assert any("too few" in refusal.reason for refusal in found.refusals)  # the first convolution has 3 channels


def test_what_asks_least_comes_first_then_what_saves_most(found: Diagnosis) -> None:
    needs = [finding.needs for finding in found.findings]
    assert needs == sorted(needs, key=["nothing", "images", "labels"].index)
    assert needs[0] == "nothing"
    for before, after in zip(found.findings, found.findings[1:], strict=False):
        assert before.needs != after.needs or before.saving_ms >= after.saving_ms


def test_numbers_agree_with_each_other(found: Diagnosis) -> None:
    for finding in found.findings:
        assert finding.saving_ms == pytest.approx(finding.before_ms - finding.after_ms)
        assert finding.share == pytest.approx(finding.saving_ms / found.latency_ms)
        assert finding.before_ms > 0
        assert finding.after_ms > 0
        assert finding.reason
    size = next(finding for finding in found.findings if finding.technique == "input size")
    assert size.before_ms == pytest.approx(found.latency_ms, rel=0.5)


def test_int8(shapes_graph: Graph) -> None:
    found = slimseg.diagnose(shapes_graph, "int8")
    assert found.precision == "int8"
    assert not any("cannot be" in refusal.reason for refusal in found.refusals)
    assert found.findings
