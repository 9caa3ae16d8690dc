"""Results on disk: strict JSON, whole files or none."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from slimseg.errors import OutputError
from slimseg.report import files
from slimseg.results import Evaluation, SlimResult


def test_json_holds_every_field(slim_result: SlimResult, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    files.write_json(slim_result, path)
    read = json.loads(path.read_text())
    assert read["speedup"] == slim_result.speedup
    assert read["baseline"]["latency_ms"] == slim_result.baseline.latency_ms
    assert [edit["technique"] for edit in read["edits"]] == [edit.technique for edit in slim_result.edits]
    assert list(tmp_path.glob(".*")) == []


def test_a_number_that_is_none_is_null(evaluation: Evaluation) -> None:
    read = json.loads(files.to_json(replace(evaluation, miou=math.nan)))
    assert read["miou"] is None


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.html"
    files.write_text("old", path)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OutputError, match=r"report\.html cannot be written"):
        files.write_text("new", path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "result.json").mkdir()
    with pytest.raises(OutputError, match=r"result\.json cannot be written"):
        files.write_text("{}", tmp_path / "result.json")


def test_results_are_readable_at_a_prompt_and_in_a_notebook(slim_result: SlimResult) -> None:
    shown = repr(slim_result)
    assert shown.startswith("SlimResult(model=")
    assert f"speedup={slim_result.speedup:.4g}" in shown
    assert f"edits={len(slim_result.edits)} of them" in shown
    assert len(shown) < 300
    evil = replace(slim_result, model="<script>")
    assert "&lt;script&gt;" in evil._repr_html_()
    assert "<script>" not in evil._repr_html_()
