"""The user's own files that a network was opened from, known by their hash."""

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
        """Raises: OSError where it cannot be read."""
        digest, size_bytes = hashlib.sha256(), 0
        with path.open("rb") as stream:
            while piece := stream.read(_PIECE):
                digest.update(piece)
                size_bytes += len(piece)
        return cls(path.absolute(), size_bytes, digest.hexdigest())

    @property
    def told(self) -> SourceFile:
        """The same for results."""
        return SourceFile(self.path.name, self.size_bytes, self.sha256)
