"""The folder of an export: written over where an earlier export filled it, left alone where anything else is in it.

    app/.slimseg/new      files while they are written and checked
    app/.slimseg/ready    all that is to be delivered: the renaming of `new` files into it decides that it will be

What an earlier export delivered stays whole until then. From then on the next start finishes what a death interrupts:
the old model card goes first and the new one comes last, so that a card always speaks of the files beside it.
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
    """A new or empty folder, or that of an earlier export, for this process alone until the end of the block.

    Where nothing was delivered, nothing is left in it, nor the folder itself if it was made for this.

    Raises:
        OutputError: it is something else, another process exports to it, or it cannot be written to.
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
    """Where files are written, and from where they are delivered all together."""

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
        """Deliver files and packages, in place of what an earlier export called the same.

        Raises:
            OutputError: there is no place for it.
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
        """What there is after the end of a command that was stopped."""
        if self.delivered:
            return f"All files are in {self.folder}."
        if self._was_new:
            return f"Nothing was written to {self.folder}: the same command starts over."
        return f"{self.folder} is as it was: the same command starts over."

    def leave(self) -> None:
        """Remove what was not delivered; what an error or Ctrl-C kept from its place gets there now."""
        with _told(self.folder):
            self._deliver()
            self._own.give_up()

    def _deliver(self) -> None:
        """Everything that is ready and not yet in its place."""
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
    """Have the disk keep a file, or a folder with all that is in it."""
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
    """Whether an earlier export left its card there."""
    try:
        return isinstance(json.loads((folder / CARD).read_text(encoding="utf-8"))["artefacts"], list)
    except (OSError, ValueError, KeyError, TypeError):
        return False
