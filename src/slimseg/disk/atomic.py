"""Files that are replaced whole or not at all, on the disk for good when the call returns.

What is written goes to a hidden file beside the old one, which takes its place in one step. A process that dies in
between leaves the hidden file; the next one that writes to the same folder removes it.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from slimseg.disk import lock
from slimseg.errors import OutputError

_HIDDEN = re.compile(r"\.slimseg-[0-9a-f]{16}")


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str], durable: bool = True) -> Iterator[BinaryIO]:
    """A file to write to, which takes the place of `path` when the block ends without an error.

    Args:
        durable: wait until the disk has it, so that even a power cut leaves the old file or the new one. Files that
            do not outlive the command need no such wait.

    Raises:
        OutputError: no room, no permission, no such folder, or a folder in the way; what was there is still there.
    """
    target = Path(path)
    try:
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if durable:
            clear(target.parent)
        with _hidden(target.parent) as (temporary, stream):
            yield stream
            stream.flush()
            if durable:
                os.fsync(stream.fileno())
            if os.name == "nt":
                stream.close()  # an open file cannot be moved there
            os.replace(temporary, target)
        if durable:
            settle(target.parent)
    except OSError as error:
        raise OutputError(f"{target} cannot be written: {_advice(error)}") from error


def write(data: bytes | memoryview, path: str | os.PathLike[str], durable: bool = True) -> None:
    """Replace `path` by `data`; see `replacing`."""
    with replacing(path, durable) as stream:
        stream.write(data)


def clear(folder: Path) -> None:
    """Remove the hidden files that dead processes left in a folder. Looks once per folder and process."""
    _clear(folder.absolute(), os.getpid())


@functools.cache
def _clear(folder: Path, _process: int) -> None:
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if _HIDDEN.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                path = Path(entry.path)
                if lock.is_abandoned(path):
                    path.unlink(missing_ok=True)


def settle(path: Path) -> None:
    """Have the disk keep what a file holds, or which names a folder holds, through a power cut."""
    with contextlib.suppress(OSError):  # not every system can do that for a folder
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def _hidden(folder: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """A new file, locked for as long as it is written, gone afterwards unless it was moved."""
    path = folder / f".slimseg-{secrets.token_hex(8)}"
    stream = lock.acquire(path)
    assert stream is not None, "the name is new, so no other process can hold it"
    try:
        with stream:
            yield path, stream
    finally:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


_ADVICE = {
    errno.EISDIR: "a folder of that name is in the way; give a file name",
    errno.ENOTDIR: "a part of the path is a file; give a path inside a folder",
    errno.ENOENT: "its folder does not exist; create the folder first",
    errno.ENOSPC: "there is no room left on the disk; free some or choose another place",
    errno.EDQUOT: "the disk quota is used up; free some room or choose another place",
    errno.EACCES: "permission denied; choose a place that you may write to",
    errno.EPERM: "permission denied; choose a place that you may write to",
    errno.EROFS: "the file system is read-only; choose another place",
}


def _advice(error: OSError) -> str:
    return _ADVICE.get(error.errno or 0, f"{error.strerror or error}; choose another place")
