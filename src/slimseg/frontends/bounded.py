"""Zips and JSON of unknown origin, opened within bounds: what unpacks to far more than is there is refused unopened."""

from __future__ import annotations

import json
import zipfile
from itertools import pairwise
from pathlib import Path
from typing import Any

from slimseg.errors import ModelError

SLACK_BYTES = 64 << 20
COMPRESSION = 16  # weights hardly compress: a file that claims more is a bomb
LONGEST_JSON_BYTES = 64 << 20
# Lists, objects and their members: an empty one takes 64 bytes of memory and two of text. A network has 150 a layer.
MOST_JSON_VALUES = 2_000_000
_LOCAL_HEADER_BYTES = 30


class Entries:
    """The entries of a zip below its one top folder. Only what is asked for is unpacked."""

    def __init__(self, path: Path) -> None:
        """Look at the table of contents.

        Raises:
            ModelError: two entries have one name, or lie over each other.
            zipfile.BadZipFile: it is no zip.
        """
        self.path = path
        self.size = path.stat().st_size
        self.read_bytes = 0
        self.archive = zipfile.ZipFile(path)
        infos = [info for info in self.archive.infolist() if not info.is_dir()]
        self.infos = {info.filename.partition("/")[2]: info for info in infos}
        if len(self.infos) != len(infos):
            raise ModelError(f"{path} holds two entries of one name: export the model again with torch.export.save")
        _require_apart(path, infos)

    def __contains__(self, name: str) -> bool:
        return name in self.infos

    def read(self, name: str) -> bytes:
        """Unpack one entry; its checksum is verified on the way.

        Raises:
            ModelError: there is none of that name, or what was read of the file so far is too large for it.
        """
        if name not in self.infos:
            raise ModelError(f"{self.path} holds no {name}: export it again with torch.export.save")
        self.read_bytes += self.infos[name].file_size
        if self.read_bytes > COMPRESSION * self.size + SLACK_BYTES:
            raise ModelError(f"{self.path} unpacks to over {self.read_bytes >> 20} MB at {name}: refused")
        return self.archive.read(self.infos[name])


def _require_apart(path: Path, infos: list[zipfile.ZipInfo]) -> None:
    ordered = sorted(infos, key=lambda info: info.header_offset)
    for info, following in pairwise(ordered):
        end = info.header_offset + _LOCAL_HEADER_BYTES + len(info.filename.encode()) + info.compress_size
        if end > following.header_offset:
            raise ModelError(f"{path} holds entries that lie over each other: export the model again")


def require_modest(path: Path) -> None:
    """Refuse a zip that unpacks to far more than is there; what is no zip has nothing to unpack.

    Raises:
        ModelError: it does.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(info.file_size for info in archive.infolist())
    if unpacked > COMPRESSION * path.stat().st_size + SLACK_BYTES:
        raise ModelError(f"{path} unpacks to {unpacked >> 20} MB: refused")


def json_of(data: bytes, source: object, what: str) -> Any:
    """Parse JSON, unless it is too large, or is nested too deeply.

    Raises:
        ModelError: it is.
        ValueError: it is no JSON.
    """
    values = sum(data.count(letter) for letter in (b"{", b"[", b","))
    if len(data) > LONGEST_JSON_BYTES or values > MOST_JSON_VALUES:
        raise ModelError(f"{source} has {len(data) >> 20} MB of {what}, more than a network needs: refused")
    try:
        return json.loads(data.decode())
    except RecursionError as error:
        raise ModelError(f"{source} has {what} that is nested too deeply: export it again") from error
