"""A command's output folder: marked as slimseg's own from the start, and used by one process at a time.

    out/.slimseg/lock    locked by the process that uses the folder, as long as it lives
    out/.slimseg/...     unfinished files of the command
    out/.slimseg.json    the command, its options, slimseg's version, and whether it is finished

A killed command leaves `.slimseg` behind: this tells the next start that it may resume or start over, although the
folder is not empty. A folder with neither `.slimseg` nor `.slimseg.json` is the user's.
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
    """The command to which a folder belongs, as noted in `.slimseg.json`."""

    command: str
    asked: dict[str, Any] = field(default_factory=dict)  # its options, as JSON values; they identify the command
    version: str = slimseg.__version__
    finished: bool = False

    def is_of(self, asked: dict[str, Any]) -> bool:
        """Whether the command was given exactly these options."""
        return bool(self.asked == json.loads(json.dumps(asked)))


class Claim:
    """A folder that only this process uses; see `claimed`."""

    def __init__(self, folder: Path, held: BinaryIO) -> None:
        self.folder = folder
        self.private = folder / PRIVATE
        self._held = held
        self.state = state_of(folder)

    def begin(self, command: str, asked: dict[str, Any] | None = None) -> None:
        """Note in the folder that it belongs to this command with these options from now on."""
        self._note(State(command, json.loads(json.dumps(asked or {}))))

    def finish(self) -> None:
        """Note that the command has finished."""
        assert self.state is not None
        self._note(State(self.state.command, self.state.asked, finished=True))

    def _note(self, state: State) -> None:
        atomic.write(json.dumps(asdict(state), indent=1).encode(), self.folder / NOTE)
        self.state = state

    def leftovers(self) -> list[Path]:
        """All entries of the private folder except the lock."""
        return [entry for entry in self.private.iterdir() if entry.name != _LOCK]

    def clear(self) -> None:
        """Remove the unfinished files of earlier processes."""
        for entry in self.leftovers():
            _remove(entry)

    def give_up(self) -> None:
        """Remove the note, so that the folder no longer belongs to a command."""
        (self.folder / NOTE).unlink(missing_ok=True)
        self.state = None

    @property
    def is_finished(self) -> bool:
        return self.state is not None and self.state.finished

    def release(self) -> None:
        """Allow other processes to use the folder; private files are kept only for an unfinished command to resume."""
        if self.state is None or self.is_finished:
            self.clear()
            (self.private / _LOCK).unlink(missing_ok=True)  # last: from now on another process may claim the folder
            with contextlib.suppress(OSError):
                self.private.rmdir()
        self._held.close()


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[Claim]:
    """Create a folder, with its parents, and lock it against other slimseg processes until the end of the block.

    Folders that were created here and are empty at the end are removed again.

    Raises:
        OutputError: another process uses the folder, or it cannot be created.
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
    """The command to which a folder belongs; None if the folder has no note of one."""
    try:
        return State(**json.loads((folder / NOTE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def is_ours(folder: Path) -> bool:
    """Whether a slimseg command has begun in this folder."""
    return (folder / PRIVATE).is_dir() or state_of(folder) is not None


def is_new(folder: Path) -> bool:
    """Whether a folder does not exist, or contains nothing but slimseg's private entries."""
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
        with contextlib.suppress(FileNotFoundError):  # another process has just removed the folder
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
