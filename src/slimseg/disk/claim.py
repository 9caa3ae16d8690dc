"""A folder that one command fills: known as slimseg's own from the first moment on, and worked in by one process.

    out/.slimseg/lock    held by the process that works in the folder, for as long as it lives
    out/.slimseg/...     what the command has not yet put into its place
    out/.slimseg.json    the command, what it was asked for, slimseg's version, and whether it is finished

A command that is killed leaves `.slimseg`: by that the next start knows that it may go on or start over in a folder
that is not empty. Folders with neither are the user's.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import slimseg
from slimseg.disk import atomic, lock
from slimseg.errors import OutputError

PRIVATE = ".slimseg"
NOTE = ".slimseg.json"
_LOCK = "lock"


@dataclass(frozen=True)
class State:
    """What is known of the command that a folder belongs to."""

    command: str
    asked: dict[str, Any] = field(default_factory=dict)  # JSON values: the same again is the same command
    version: str = slimseg.__version__
    finished: bool = False

    def is_of(self, asked: dict[str, Any]) -> bool:
        """Whether the command was asked for just that."""
        return bool(self.asked == json.loads(json.dumps(asked)))


class Claim:
    """A folder that this process alone works in; see `claimed`."""

    def __init__(self, folder: Path, held: BinaryIO) -> None:
        self.folder = folder
        self.private = folder / PRIVATE
        self._held = held
        self.state = state_of(folder)

    def begin(self, command: str, asked: dict[str, Any] | None = None) -> None:
        """Note whose folder this is from now on."""
        self._note(State(command, json.loads(json.dumps(asked or {}))))

    def finish(self) -> None:
        """Note that the command has done all that it was asked for."""
        assert self.state is not None
        self._note(State(self.state.command, self.state.asked, finished=True))

    def _note(self, state: State) -> None:
        atomic.write(json.dumps(asdict(state), indent=1).encode(), self.folder / NOTE)
        self.state = state

    def leftovers(self) -> list[Path]:
        """All that is private but the lock."""
        return [entry for entry in self.private.iterdir() if entry.name != _LOCK]

    def clear(self) -> None:
        """Remove what a process left unfinished."""
        for entry in self.leftovers():
            _remove(entry)

    def give_up(self) -> None:
        """Forget the command: nothing in the folder is slimseg's business any more."""
        (self.folder / NOTE).unlink(missing_ok=True)
        self.state = None

    @property
    def is_finished(self) -> bool:
        return self.state is not None and self.state.finished

    def release(self) -> None:
        """Let other processes in; what is private stays only for a command that is to go on."""
        if self.state is None or self.is_finished:
            self.clear()
            (self.private / _LOCK).unlink(missing_ok=True)  # last: another process may take the folder from now on
            with contextlib.suppress(OSError):
                self.private.rmdir()
        self._held.close()


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[Claim]:
    """Make a folder, with its parents, and keep other processes of slimseg out of it.

    Folders that were made for it and stayed empty are removed again.

    Raises:
        OutputError: another process works in it, or it cannot be made.
    """
    missing = [each for each in (folder, *folder.absolute().parents) if not each.exists()]
    claim = _claim(folder)
    try:
        atomic.clear(folder)
        yield claim
    finally:
        claim.release()
        with contextlib.suppress(OSError):  # not empty
            for made in missing:
                made.rmdir()


def state_of(folder: Path) -> State | None:
    """Whose folder it is; None where that is not noted."""
    try:
        return State(**json.loads((folder / NOTE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def is_ours(folder: Path) -> bool:
    """Whether a command of slimseg began in this folder."""
    return (folder / PRIVATE).is_dir() or state_of(folder) is not None


def is_new(folder: Path) -> bool:
    """Whether nothing but slimseg's own is in a folder, or there is no such folder."""
    if folder.exists() and not folder.is_dir():
        return False
    return not folder.is_dir() or all(entry.name in (PRIVATE, NOTE) for entry in folder.iterdir())


def _claim(folder: Path) -> Claim:
    try:
        held = _locked(folder / PRIVATE)
    except OSError as error:
        raise OutputError(f"{folder} cannot be made: {error.strerror or error}") from error
    if held is None:
        other = _process(folder / PRIVATE / _LOCK)
        raise OutputError(f"another slimseg{other} is working in {folder}: wait for it, or give another folder")
    held.truncate(0)
    held.write(str(os.getpid()).encode())
    held.flush()
    return Claim(folder, held)


def _locked(private: Path) -> BinaryIO | None:
    while True:
        private.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):  # another process has given the folder up just now
            return lock.acquire(private / _LOCK)


def _process(path: Path) -> str:
    try:
        return f" (process {int(path.read_text())})"
    except (OSError, ValueError):
        return ""


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
