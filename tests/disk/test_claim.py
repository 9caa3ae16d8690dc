"""One process works in a folder at a time, and the next one knows whose it was."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from slimseg.disk import claim
from slimseg.disk.claim import NOTE, PRIVATE, State
from slimseg.errors import OutputError

WORK = """
import pathlib, sys
from slimseg.disk import claim
with claim.claimed(pathlib.Path(sys.argv[1])) as own:
    own.begin("export", {"to": ["tflite"]})
    (own.private / "half").mkdir()
    print("working", flush=True)
    sys.stdin.read()
"""


def names_in(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


def test_another_process_is_named_and_a_dead_one_makes_room(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "app"
    command = [sys.executable, "-c", WORK, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "working\n"
        told = rf"another slimseg \(process {process.pid}\) is working in "
        with pytest.raises(OutputError, match=told), claim.claimed(folder):
            pass
        process.kill()
    with claim.claimed(folder) as own:
        assert own.state == State("export", {"to": ["tflite"]})
        assert [path.name for path in own.leftovers()] == ["half"]
        own.clear()
        own.finish()
    assert names_in(folder) == [NOTE]
    state = claim.state_of(folder)
    assert state is not None
    assert state.finished
    assert state.is_of({"to": ("tflite",)})
    assert not state.is_of({"to": ("ncnn",)})


def test_a_folder_that_stays_empty_is_removed_with_those_made_for_it(tmp_path: Path) -> None:
    with claim.claimed(tmp_path / "deep" / "app"):
        assert names_in(tmp_path / "deep" / "app") == [PRIVATE]
    assert not names_in(tmp_path)
    (tmp_path / "mine").mkdir()
    with claim.claimed(tmp_path / "mine" / "app") as own:
        own.begin("export")
        own.give_up()
    assert names_in(tmp_path) == ["mine"]


def test_what_is_new(tmp_path: Path) -> None:
    assert claim.is_new(tmp_path / "none")
    assert claim.is_new(tmp_path)
    (tmp_path / PRIVATE).mkdir()
    assert claim.is_new(tmp_path)
    (tmp_path / "file").touch()
    assert not claim.is_new(tmp_path)
    assert not claim.is_new(tmp_path / "file")


@pytest.mark.parametrize("text", ["", "[]", '{"command": "slim", "colour": 3}', "{" * 5])
def test_a_damaged_note_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / PRIVATE).mkdir()
    (tmp_path / NOTE).write_text(text)
    assert claim.is_ours(tmp_path)
    assert claim.state_of(tmp_path) is None


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_place_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="cannot be made"), claim.claimed(tmp_path / "app"):
        pass
