"""The folder of an export: overwritten if an earlier export filled it, left alone if it has anything else.

    app/.slimseg/new      files while they are written and checked
    app/.slimseg/ready    all files to deliver; once this folder exists, they will be delivered

Until then the files of an earlier export stay complete. After that, if the process dies, the next start finishes the
delivery. The old model card is removed first and the new one is moved last, so that a card always describes the files
beside it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from slimseg.disk import atomic, claim
from slimseg.disk.claim import Claim
from slimseg.errors import OutputError
from slimseg.stopping import keeping

CARD = "model_card.json"
CARDS = (CARD, "model_card.md")
COMMAND = "export"


@contextmanager
def opened(folder: Path) -> Iterator[Place]:
    """Open a new or empty folder, or that of an earlier export, for this process alone until the end of the block.

    If nothing was delivered, the folder is left unchanged, and removed if it was created here.

    Raises:
        OutputError: the folder has other contents, another process exports to it, or it cannot be written.
    """
    _check(folder)
    with claim.claimed(folder) as own:
        place = Place(own)
        with keeping(place.kept):
            try:
                yield place
            finally:
                place.leave()


class Place:
    """A folder in which files are written in `scratch`, and from there delivered all together."""

    def __init__(self, own: Claim) -> None:
        self.folder = own.folder
        self._own = own
        self.scratch = own.private / "new"
        self._gathered, self._ready = own.private / "gathered", own.private / "ready"
        with _told(self.folder):
            own.begin(COMMAND)
            self._deliver()
            own.clear()
            self.scratch.mkdir()
        self.delivered = False
        self._was_new = claim.is_new(self.folder)

    def take(self, paths: Sequence[Path]) -> None:
        """Deliver files and packages, replacing those of the same name from an earlier export.

        Raises:
            OutputError: the folder cannot be written, for example because the disk is full.
        """
        with _told(self.folder):
            self._gathered.mkdir()
            for path in paths:
                settled(path)
                os.replace(path, self._gathered / path.name)
            atomic.settle(self._gathered)
            os.replace(self._gathered, self._ready)
            atomic.settle(self._ready.parent)
            self._deliver()

    def kept(self) -> str:
        """The state of the folder after the command was stopped, in a sentence."""
        if self.delivered:
            return f"All files are in {self.folder}."
        if self._was_new:
            return f"Nothing was written to {self.folder}: the same command starts over."
        return f"{self.folder} is unchanged: the same command starts over."

    def leave(self) -> None:
        """Finish a delivery that an error or Ctrl-C interrupted, and remove files that are not delivered."""
        with _told(self.folder):
            self._deliver()
            self._own.give_up()

    def _deliver(self) -> None:
        """Move all files that are ready, and not yet delivered, to their places."""
        if not self._ready.is_dir():
            return
        old = self._ready.parent / "old"
        old.mkdir(exist_ok=True)
        names = sorted((entry.name for entry in self._ready.iterdir()), key=lambda name: (name in CARDS, name == CARD))
        for name in CARDS:
            if (self._ready / name).exists():
                (self.folder / name).unlink(missing_ok=True)
        for name in names:
            new, target = self._ready / name, self.folder / name
            if target.is_dir() or (target.exists() and new.is_dir()):
                os.replace(target, old / name)
            os.replace(new, target)
        atomic.settle(self.folder)
        self._ready.rmdir()
        self.delivered = True


def settled(path: Path) -> None:
    """Flush a file, or a folder with its contents, to the disk."""
    for each in (*path.rglob("*"), path) if path.is_dir() else (path,):
        atomic.settle(each)


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"{error.filename or folder} cannot be written: {error.strerror or error}") from error


def _check(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file: give a folder for the export")
    if claim.is_ours(folder):
        state = claim.state_of(folder)
        if state is not None and state.command != COMMAND:
            raise OutputError(f"{folder} is the folder of a run of slimseg {state.command}: give another folder")
    elif not claim.is_new(folder) and not _is_export(folder):
        raise OutputError(f"{folder} has files that are not from an export: give another folder")


def _is_export(folder: Path) -> bool:
    """Whether the folder has the model card of an earlier export."""
    try:
        return isinstance(json.loads((folder / CARD).read_text(encoding="utf-8"))["artefacts"], list)
    except (OSError, ValueError, KeyError, TypeError):
        return False
