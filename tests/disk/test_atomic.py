"""A file is replaced whole or not at all, and what the dead leave is cleared."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from slimseg.disk import atomic, lock
from slimseg.errors import OutputError

DIE = """
import os, pathlib, sys
from slimseg.disk import atomic
with atomic.replacing(sys.argv[1]) as stream:
    stream.write(b"half")
    stream.flush()
    os.kill(os.getpid(), 9)
"""


def names_in(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


def test_a_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for data in (b"old", b"new"):
        atomic.write(data, path)
        assert path.read_bytes() == data
    assert names_in(tmp_path) == ["file"]


@pytest.mark.skipif(os.name != "posix", reason="no umask")
def test_others_may_read_it_as_they_may_what_the_user_writes(tmp_path: Path) -> None:
    (tmp_path / "by hand").touch()
    atomic.write(b"new", tmp_path / "file")
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "by hand").stat().st_mode


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_error_leaves_what_was_there(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(error), atomic.replacing(path) as stream:
        _half(stream, error)
    assert path.read_bytes() == b"old"
    assert names_in(tmp_path) == ["file"]


def _half(stream: Any, error: type[BaseException]) -> None:
    stream.write(b"half")
    raise error


@pytest.mark.skipif(os.name != "posix", reason="no kill")
def test_what_a_dead_process_left_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    assert subprocess.run([sys.executable, "-c", DIE, str(path)], check=False).returncode == -9
    assert path.read_bytes() == b"old"
    (left,) = (name for name in names_in(tmp_path) if name != "file")
    assert left.startswith(".slimseg-")
    living = lock.acquire(tmp_path / ".slimseg-0123456789abcdef")
    assert living is not None
    (tmp_path / ".slimseg-notes").write_text("mine")
    atomic.write(b"new", path)
    assert names_in(tmp_path) == [".slimseg-0123456789abcdef", ".slimseg-notes", "file"]
    living.close()


@pytest.mark.parametrize(("name", "told"), [("no/file", "folder does not exist"), (".", "in the way")])
def test_places_that_cannot_be_written(tmp_path: Path, name: str, told: str) -> None:
    with pytest.raises(OutputError, match=told):
        atomic.write(b"new", tmp_path / name)
    assert not names_in(tmp_path)
