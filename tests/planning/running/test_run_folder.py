"""A run begins in an empty folder or goes on in its own; it never writes over anything else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import slimseg
from slimseg.disk import claim
from slimseg.disk.claim import NOTE, PRIVATE
from slimseg.errors import OutputError
from slimseg.graph.graph import Graph
from slimseg.planning.running import run_folder
from slimseg.planning.running.journal import FILE
from slimseg.planning.running.run_folder import WORK

ASKED: dict[str, Any] = {"budget": {"max_drop": 1.0}, "seed": 0}


class Died(BaseException):
    """Stands for a kill: what follows it in the test is another process."""


@pytest.fixture
def graph(shapes_graph: Graph) -> Graph:
    return shapes_graph


def killed(graph: Graph, out: Path, monkeypatch: pytest.MonkeyPatch, entry: str = "", **changes: Any) -> None:
    """A run that dies after its first file, or after its first entry in the journal."""
    with monkeypatch.context() as patch:
        patch.setattr(run_folder, "_leave", lambda *_: None)
        with pytest.raises(Died), run_folder.opened(out, graph, {**ASKED, **changes}) as run:
            _work_until_killed(run, entry)


def _work_until_killed(run: run_folder.RunFolder, entry: str) -> None:
    (run.folder / "original_float.tflite").write_bytes(b"half")
    if entry:
        run.journal[entry] = 1
    raise Died


def test_a_new_folder_is_made_with_its_parents(graph: Graph, tmp_path: Path) -> None:
    out = tmp_path / "runs" / "first"
    with run_folder.opened(out, graph, ASKED) as run:
        assert run.result is None
        assert {path.name for path in out.iterdir()} == {WORK, PRIVATE, NOTE}
    assert not (tmp_path / "runs").exists()  # nothing was kept in it


def test_a_run_that_died_before_its_first_entry_starts_over(
    graph: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed(graph, tmp_path / "run", monkeypatch)
    with run_folder.opened(tmp_path / "run", graph, {**ASKED, "seed": 1}) as run:
        assert not run.journal.resumed
        assert run.result is None


def test_a_run_that_died_with_its_marker_alone_starts_over(graph: Graph, tmp_path: Path) -> None:
    (tmp_path / PRIVATE).mkdir()
    (tmp_path / "original_float.tflite").touch()
    with run_folder.opened(tmp_path, graph, ASKED) as run:
        assert not run.journal.resumed


def test_an_unfinished_run_goes_on(graph: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killed(graph, tmp_path / "run", monkeypatch, "plan")
    with (
        pytest.raises(OutputError, match=r"other settings \(seed"),
        run_folder.opened(tmp_path / "run", graph, {"seed": 1}),
    ):
        pass
    with run_folder.opened(tmp_path / "run", graph, ASKED) as run:
        assert run.journal["plan"] == 1
        assert (run.folder / "original_float.tflite").read_bytes() == b"half"


def test_another_version_is_named(graph: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killed(graph, tmp_path, monkeypatch, "plan")
    journal = tmp_path / WORK / FILE
    begun, *entries = journal.read_text().splitlines()
    journal.write_text("\n".join([json.dumps({**json.loads(begun), "slimseg": "0.0.1"}), *entries]))
    told = rf"unfinished run of slimseg 0\.0\.1, and this is {slimseg.__version__}: "
    with pytest.raises(OutputError, match=told), run_folder.opened(tmp_path, graph, ASKED):
        pass
    assert (tmp_path / WORK).is_dir()


def test_another_version_that_notes_more_is_named_too(
    graph: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its note of the folder cannot be read then, and the journal used to be read as if it were this version's."""
    with monkeypatch.context() as patch:
        patch.setattr(slimseg, "__version__", "9.9")
        killed(graph, tmp_path, monkeypatch, "plan")
    note = tmp_path / NOTE
    note.write_text(json.dumps({**json.loads(note.read_text()), "device": "phone"}))
    with pytest.raises(OutputError, match=r"run of slimseg 9\.9"), run_folder.opened(tmp_path, graph, ASKED):
        pass
    assert (tmp_path / WORK / FILE).is_file()


def test_a_run_of_the_time_before_versions_is_named(graph: Graph, tmp_path: Path) -> None:
    (tmp_path / WORK).mkdir()
    (tmp_path / WORK / "journal.json").write_text("{}")
    with pytest.raises(OutputError, match="of an earlier slimseg"), run_folder.opened(tmp_path, graph, ASKED):
        pass


def test_a_folder_of_another_command_is_refused(graph: Graph, tmp_path: Path) -> None:
    with claim.claimed(tmp_path / "app") as own:
        own.begin("export")
    with pytest.raises(OutputError, match="slimseg export"), run_folder.opened(tmp_path / "app", graph, ASKED):
        pass


@pytest.mark.parametrize("name", ["full", "full/file"])
def test_what_is_there_is_never_written_over(graph: Graph, tmp_path: Path, name: str) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    with pytest.raises(OutputError, match="not empty"), run_folder.opened(tmp_path / name, graph, ASKED):
        pass
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["file"]


def test_no_room_is_said_before_anything_is_made(graph: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1_000_000))
    told = "1 MB of free space"
    with pytest.raises(OutputError, match=told), run_folder.opened(tmp_path / "run", graph, ASKED):
        pass
    assert not (tmp_path / "run").exists()
