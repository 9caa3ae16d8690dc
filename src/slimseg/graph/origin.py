"""The user's files that a network was opened from, identified by their hashes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from slimseg.results import SourceFile

_PIECE = 1 << 20  # bytes read at once


@dataclass(frozen=True)
class Origin:
    """One file as it was when the network was opened."""

    path: Path  # absolute
    size_bytes: int
    sha256: str  # hexadecimal

    @classmethod
    def of(cls, path: Path) -> Origin:
        """Hash the file at `path`.

        Raises:
            OSError: the file cannot be read.
        """
        digest, size_bytes = hashlib.sha256(), 0
        with path.open("rb") as stream:
            while piece := stream.read(_PIECE):
                digest.update(piece)
                size_bytes += len(piece)
        return cls(path.absolute(), size_bytes, digest.hexdigest())

    @property
    def told(self) -> SourceFile:
        """The file as it is reported in results."""
        return SourceFile(self.path.name, self.size_bytes, self.sha256)
