"""Temporary folders go with the process; those of the dead go with the next process."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from slimseg.disk import scratch

USE = """
import os, sys
from slimseg.disk import scratch
with scratch.folder() as folder:
    (folder / "model.tflite").touch()
    print(folder, flush=True)
    if len(sys.argv) > 1:
        os.kill(os.getpid(), int(sys.argv[1]))
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def use(*arguments: str) -> Path:
    done = subprocess.run([sys.executable, "-c", USE, *arguments], check=False, stdout=subprocess.PIPE, text=True)
    return Path(done.stdout.strip())


def test_a_folder_goes_at_the_end_of_its_block(place: Path) -> None:
    with scratch.folder() as first, scratch.folder() as second:
        assert first != second
        assert first.parent == second.parent == scratch.root()
    assert not first.exists()
    assert scratch.root().parent == place


def test_a_process_leaves_nothing(place: Path) -> None:
    assert use().parent.parent == place
    assert not list(place.iterdir())


@pytest.mark.skipif(os.name != "posix", reason="no kill")
def test_the_next_process_clears_what_a_dead_one_left(place: Path) -> None:
    killed = use("9")
    assert (killed / "model.tflite").is_file()
    (place / "slimseg-scratch-half").mkdir()  # died before it could lock anything
    (place / "slimseg-scratch-of-mine").mkdir()
    (place / "slimseg-scratch-of-mine" / "thesis.txt").write_text("years")
    with scratch.folder() as mine:
        assert {each.name for each in place.iterdir()} == {mine.parent.name, "slimseg-scratch-of-mine"}
        use()  # another process, whose start clears as well
        assert mine.is_dir()


def test_temporary_files_of_libraries_go_there_for_a_while(place: Path) -> None:
    with scratch.for_libraries():
        made = Path(tempfile.mkdtemp())
        assert made.is_relative_to(place)
        assert made.parents[1].name.startswith("slimseg-scratch-")
    assert not made.exists()
    assert Path(tempfile.mkdtemp()).parent == place
