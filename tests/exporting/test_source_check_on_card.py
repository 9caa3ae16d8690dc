"""The model card says how the network that was exported compares with its source's own runtime."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from slimseg.export import export
from slimseg.exporting import heads
from slimseg.frontends import load

SOURCE = Path(__file__).resolve().parents[1] / "data" / "gated_float.tflite"


def test_the_card_names_the_runtime(tmp_path: Path, quick_timing: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads, "ROUNDS", 1)
    export(load(SOURCE, verify=True), tmp_path / "app", "tflite")
    card = json.loads((tmp_path / "app" / "model_card.json").read_text())
    assert card["provenance"]["source_check"].startswith("outputs as LiteRT's within ")
    assert card["provenance"]["source_check"] in (tmp_path / "app" / "model_card.md").read_text()
