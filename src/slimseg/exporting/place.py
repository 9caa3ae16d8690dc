"""The folder of an export: written over where an earlier export filled it, left alone where anything else is in it."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
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

    def scratch(self) -> tempfile.TemporaryDirectory[str]:
        """A folder within it, so that moving a file into place is one step."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            return tempfile.TemporaryDirectory(dir=self.folder, prefix=".slimseg-")
        except OSError as error:
            raise OutputError(f"{self.folder} cannot be written to: {error.strerror or error}") from error

    def take(self, paths: Sequence[Path]) -> None:
        """Move files and packages here, in place of what an earlier export called the same.

        Raises:
            OutputError: the disk refuses.
        """
        for path in paths:
            target = self.folder / path.name
            try:
                if target.is_dir():
                    os.replace(target, path.parent / f"old_{path.name}")
                os.replace(path, target)
            except OSError as error:
                raise OutputError(f"{target} cannot be written: {error.strerror or error}") from error


def _is_export(folder: Path) -> bool:
    """Whether an earlier export left its card there."""
    try:
        return isinstance(json.loads((folder / CARD).read_text(encoding="utf-8"))["artefacts"], list)
    except (OSError, ValueError, KeyError, TypeError):
        return False
