"""Profiles as CSV and as trace events: complete, readable by what reads such files, whole or not at all."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest

from slimseg.errors import OutputError
from slimseg.report import charts
from slimseg.report.files import to_json
from slimseg.report.profile_files import COLUMNS, trace, write_csv, write_trace
from slimseg.results import Profile


def test_csv(full: Profile, tmp_path: Path) -> None:
    path = tmp_path / "layers.csv"
    write_csv(full, path)
    with path.open(newline="", encoding="utf-8") as stream:
        lines = list(csv.DictReader(stream))
    assert tuple(lines[0]) == COLUMNS
    assert [line["name"] for line in lines] == [layer.name for layer in full.layers]
    for line, layer in zip(lines, full.layers, strict=True):
        assert float(line["latency_ms"]) == pytest.approx(layer.latency_ms, rel=1e-5)
        assert float(line["std_ms"]) == pytest.approx(layer.statistics.std_ms, rel=1e-5)
        assert int(line["macs"]) == layer.macs
        assert line["output_shape"] == "1x180x240x64"


def test_what_an_operator_computes_is_in_every_file(full: Profile, tmp_path: Path) -> None:
    covers = ("pad", full.layers[0].name, "relu")
    profile = replace(full, layers=(replace(full.layers[0], covers=covers), *full.layers[1:]))
    write_csv(profile, tmp_path / "layers.csv")
    lines = list(csv.DictReader((tmp_path / "layers.csv").read_text(encoding="utf-8").splitlines()))
    assert [line["covers"] for line in lines] == [" ".join(covers), *[""] * (len(lines) - 1)]
    first = next(event for event in trace(profile)["traceEvents"] if event["name"] == full.layers[0].name)
    assert first["args"]["covers"] == list(covers)
    hint = charts.time_chart("", profile, dict.fromkeys((each.op for each in profile.layers), 0)).bars[0].hint
    assert "with pad, relu" in hint


def test_trace_events(full: Profile, tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    write_trace(full, path)
    found = json.loads(path.read_text())
    assert found == json.loads(json.dumps(trace(full)))
    events = found["traceEvents"]
    rows = {event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"}
    assert sorted(rows.values()) == ["XNNPACK", "built-in", "network"]
    complete = [event for event in events if event["ph"] == "X"]
    assert len(complete) == len(full.kernels) + 1
    for event in complete:
        assert set(event) >= {"name", "cat", "pid", "tid", "ts", "dur"}
        assert event["dur"] >= 0
    kernels = complete[1:]
    for kernel, event in zip(full.kernels, kernels, strict=True):
        assert rows[event["tid"]] == kernel.delegate
        assert event["dur"] == pytest.approx(1e3 * kernel.duration_ms, abs=0.001)  # microseconds
    ends = [event["ts"] + event["dur"] for event in kernels]
    assert all(end <= event["ts"] + 0.01 for end, event in zip(ends, kernels[1:], strict=False))
    assert complete[0]["dur"] == pytest.approx(ends[-1], abs=0.01)


def test_json_carries_everything(full: Profile) -> None:
    found = json.loads(to_json(full))
    assert set(found["layers"][0]["statistics"]) >= {"first_ms", "average_ms", "min_ms", "max_ms", "std_ms"}
    for part in ("kernels", "node_types", "roofs", "fallbacks", "islands"):
        assert len(found[part]) == len(getattr(full, part)) > 0


@pytest.mark.parametrize("write", [write_csv, write_trace])
def test_a_place_that_cannot_be_written(full: Profile, tmp_path: Path, write: object) -> None:
    with pytest.raises(OutputError, match="does not exist"):
        write(full, tmp_path / "none" / "file")  # type: ignore[operator]
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="folder"):
        write(full, tmp_path / "folder")  # type: ignore[operator]
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
