"""A lock is held until its process lets go or dies."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from slimseg.disk import lock

HOLD = """
import sys, pathlib
from slimseg.disk import lock
held = lock.acquire(pathlib.Path(sys.argv[1]))
print("held" if held else "busy", flush=True)
sys.stdin.read()
"""


def other(path: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOLD, str(path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with other(path) as process:
        assert lock.acquire(path) is None
        assert not lock.is_abandoned(path)
        process.kill()
        process.wait()
    assert lock.is_abandoned(path)
    held = lock.acquire(path)
    assert held is not None
    assert lock.acquire(path) is None
    held.close()
    assert lock.is_abandoned(path)


def test_a_file_that_was_removed_in_between_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its last owner removes it after it was opened here, and before it is locked."""
    path, locked, calls = tmp_path / "lock", lock._locked, []

    def late(descriptor: int) -> bool | None:
        calls.append(descriptor)
        if len(calls) == 1:
            path.unlink()
        return locked(descriptor)

    monkeypatch.setattr(lock, "_locked", late)
    held = lock.acquire(path)
    assert held is not None
    assert len(calls) == 2
    assert path.exists()
    held.close()


def test_where_nothing_is_nothing_is_abandoned(tmp_path: Path) -> None:
    assert not lock.is_abandoned(tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("years")
    (tmp_path / "lock").symlink_to(tmp_path / "mine")
    with pytest.raises(OSError, match="lock"):
        lock.acquire(tmp_path / "lock")
    assert not lock.is_abandoned(tmp_path / "lock")
