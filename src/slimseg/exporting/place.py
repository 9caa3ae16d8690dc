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
    """The folder for the files; what is in it and is not from an earlier export stays as it is."""

    def __init__(self, folder: Path) -> None:
        if folder.exists() and not folder.is_dir():
            raise OutputError(f"{folder} is a file: give a folder for the export")
        self.folder = folder
        self.own = _exported(folder / CARD)
        if folder.is_dir() and not self.own and any(folder.iterdir()):
            raise OutputError(f"{folder} has files that are not from an export: give another folder")

    def scratch(self) -> tempfile.TemporaryDirectory[str]:
        """A folder within it, so that moving a file into place is one step."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            return tempfile.TemporaryDirectory(dir=self.folder, prefix=".slimseg-")
        except OSError as error:
            raise OutputError(f"{self.folder} cannot be written to: {error.strerror or error}") from error

    def take(self, paths: Sequence[Path]) -> None:
        """Move files and packages here, in place of what an earlier export called the same: all of them or none.

        Raises:
            OutputError: something else is in the way, or the disk refuses.
        """
        for path in paths:
            if (self.folder / path.name).exists() and path.name not in self.own:
                raise OutputError(f"{self.folder / path.name} is in the way: give another folder")
        for path in paths:
            target = self.folder / path.name
            try:
                if target.is_dir():
                    os.replace(target, path.parent / f"old_{path.name}")
                os.replace(path, target)
            except OSError as error:
                raise OutputError(f"{target} cannot be written: {error.strerror or error}") from error


def _exported(card: Path) -> frozenset[str]:
    """Names of what an earlier export left, by its card."""
    try:
        artefacts = json.loads(card.read_text(encoding="utf-8"))["artefacts"]
        files = {str(name) for each in artefacts for name in (*each["files"], each["picture"])}
        return frozenset({*files, card.name})
    except (OSError, ValueError, KeyError, TypeError):
        return frozenset()
