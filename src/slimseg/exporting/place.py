"""The folder of an export: written over where an earlier export filled it, left alone where anything else is in it."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from slimseg.errors import OutputError

CARD = "model_card.json"


class Place:
    """A new or empty folder, or that of an earlier export, whose files are written over.

    Raises:
        OutputError: it is something else.
    """

    def __init__(self, folder: Path) -> None:
        if folder.exists() and not folder.is_dir():
            raise OutputError(f"{folder} is a file: give a folder for the export")
        if folder.is_dir() and any(folder.iterdir()) and not _is_export(folder):
            raise OutputError(f"{folder} has files that are not from an export: give another folder")
        self.folder = folder

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder within it, so that moving a file into place is one step; what is still empty afterwards goes.

        Raises:
            OutputError: there is no place for it.
        """
        missing = [each for each in (self.folder, *self.folder.parents) if not each.exists()]
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            scratch = tempfile.TemporaryDirectory(dir=self.folder, prefix=".slimseg-")
        except OSError as error:
            raise OutputError(f"{self.folder} cannot be written to: {error.strerror or error}") from error
        try:
            with scratch as name:
                yield Path(name)
        finally:
            for each in missing:
                _remove_if_empty(each)

    def take(self, paths: Sequence[Path]) -> None:
        """Move files and packages here, in place of what an earlier export called the same: all of them or none.

        Raises:
            OutputError: the disk refuses; what was here before is here again.
        """
        moved: list[tuple[Path, Path | None]] = []  # what is here now, and where that lies which was here before
        for number, path in enumerate(paths):
            target = self.folder / path.name
            try:
                old = path.parent / f"old_{number}_{path.name}" if target.exists() else None
                if old is not None:
                    os.replace(target, old)
                moved.append((target, old))
                os.replace(path, target)
            except OSError as error:
                self._put_back(moved, path.parent)
                raise OutputError(f"{target} cannot be written: {error.strerror or error}") from error

    def _put_back(self, moved: Sequence[tuple[Path, Path | None]], scratch: Path) -> None:
        for number, (target, old) in enumerate(moved):
            with suppress(OSError):
                if target.exists():
                    os.replace(target, scratch / f"new_{number}_{target.name}")
                if old is not None:
                    os.replace(old, target)


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def _is_export(folder: Path) -> bool:
    """Whether an earlier export left its card there."""
    try:
        return isinstance(json.loads((folder / CARD).read_text(encoding="utf-8"))["artefacts"], list)
    except (OSError, ValueError, KeyError, TypeError):
        return False
