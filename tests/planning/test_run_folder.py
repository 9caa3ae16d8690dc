"""A run begins in an empty folder or goes on in its own; it never writes over anything else."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from slimseg.errors import OutputError
from slimseg.graph.graph import Graph
from slimseg.planning import journal, run_folder
from slimseg.planning.run_folder import WORK


def test_a_new_folder_is_made_with_its_parents(shapes_graph: Graph, tmp_path: Path) -> None:
    out = tmp_path / "runs" / "first"
    assert run_folder.opened(out, shapes_graph) == out
    assert [path.name for path in out.iterdir()] == [WORK]


def test_an_unfinished_run_is_opened_again_and_left_as_it_is(shapes_graph: Graph, tmp_path: Path) -> None:
    run_folder.opened(tmp_path, shapes_graph)
    (tmp_path / WORK / journal.FILE).write_text("{}")
    (tmp_path / "original_float.tflite").write_bytes(b"kept")
    run_folder.opened(tmp_path, shapes_graph)
    assert (tmp_path / WORK / journal.FILE).read_text() == "{}"
    assert (tmp_path / "original_float.tflite").read_bytes() == b"kept"


@pytest.mark.parametrize("name", ["full", "full/file"])
def test_what_is_there_is_never_written_over(shapes_graph: Graph, tmp_path: Path, name: str) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    with pytest.raises(OutputError, match="not empty"):
        run_folder.opened(tmp_path / name, shapes_graph)
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["file"]


def test_no_room_is_said_before_anything_is_made(
    shapes_graph: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1_000_000))
    with pytest.raises(OutputError, match="1 MB of free space"):
        run_folder.new(tmp_path / "run", shapes_graph)
    assert not (tmp_path / "run").exists()
