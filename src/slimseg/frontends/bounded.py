"""Zips and JSON of unknown origin, opened within bounds: what would unpack to far more than its size is refused."""

from __future__ import annotations

import json
import zipfile
from itertools import pairwise
from pathlib import Path
from typing import Any

from slimseg.errors import ModelError

SLACK_BYTES = 64 << 20
COMPRESSION = 16  # most unpacked bytes per stored byte; weights hardly compress, so a larger ratio is a zip bomb
LONGEST_JSON_BYTES = 64 << 20
# Lists, objects and their members in JSON. An empty list is 2 bytes of text and 64 bytes of memory. A network has about
# 150 values per layer.
MOST_JSON_VALUES = 2_000_000
_LOCAL_HEADER_BYTES = 30


class Entries:
    """The entries of a zip below its one top folder. An entry is unpacked only when it is read."""

    def __init__(self, path: Path) -> None:
        """Read the table of contents.

        Raises:
            ModelError: two entries have the same name, or overlap in the file.
            zipfile.BadZipFile: the file is no zip.
        """
        self.path = path
        self.size = path.stat().st_size
        self.read_bytes = 0
        self.archive = zipfile.ZipFile(path)
        infos = [info for info in self.archive.infolist() if not info.is_dir()]
        self.infos = {info.filename.partition("/")[2]: info for info in infos}
        if len(self.infos) != len(infos):
            raise ModelError(
                f"{path} holds two entries with the same name: export the model again with torch.export.save"
            )
        _require_apart(path, infos)

    def __contains__(self, name: str) -> bool:
        return name in self.infos

    def read(self, name: str) -> bytes:
        """Unpack one entry and verify its checksum.

        Raises:
            ModelError: there is no entry of that name, or all entries read so far are too large for the file.
        """
        if name not in self.infos:
            raise ModelError(f"{self.path} holds no {name}: export it again with torch.export.save")
        self.read_bytes += self.infos[name].file_size
        if self.read_bytes > COMPRESSION * self.size + SLACK_BYTES:
            raise ModelError(
                f"{self.path} unpacks to over {self.read_bytes >> 20} MB at {name}, more than a network needs: refused"
            )
        return self.archive.read(self.infos[name])


def _require_apart(path: Path, infos: list[zipfile.ZipInfo]) -> None:
    ordered = sorted(infos, key=lambda info: info.header_offset)
    for info, following in pairwise(ordered):
        end = info.header_offset + _LOCAL_HEADER_BYTES + len(info.filename.encode()) + info.compress_size
        if end > following.header_offset:
            raise ModelError(f"{path} holds entries that overlap: export the model again")


def require_modest(path: Path) -> None:
    """Refuse a zip that unpacks to far more than its size. A file that is no zip passes.

    Raises:
        ModelError: the zip unpacks to too much.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(info.file_size for info in archive.infolist())
    if unpacked > COMPRESSION * path.stat().st_size + SLACK_BYTES:
        raise ModelError(f"{path} unpacks to {unpacked >> 20} MB, more than a network needs: refused")


def json_of(data: bytes, source: object, what: str) -> Any:
    """Parse JSON that is neither too large nor nested too deeply.

    Raises:
        ModelError: it is too large or nested too deeply.
        ValueError: it is not valid JSON.
    """
    values = sum(data.count(letter) for letter in (b"{", b"[", b","))
    if len(data) > LONGEST_JSON_BYTES or values > MOST_JSON_VALUES:
        raise ModelError(f"{source} has {len(data) >> 20} MB of {what}, more than a network needs: refused")
    try:
        return json.loads(data.decode())
    except RecursionError as error:
        raise ModelError(f"{source} has {what} that is nested too deeply: export it again") from error
