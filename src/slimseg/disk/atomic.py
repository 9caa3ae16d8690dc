"""Atomic writes: a file is replaced as a whole or not at all, and is on the disk when the call returns.

The new contents are written to a hidden file in the same folder, which then replaces the old file in one step. If the
process dies before that, the hidden file remains; the next process that writes to the folder removes it.
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
    """A file to write to, which replaces `path` when the block ends without an error.

    Args:
        durable: wait until the data is on the disk, so that even after a power cut either the old or the new file is
            there. Not needed for files that do not outlive the command.

    Raises:
        OutputError: no space, no permission, no such folder, or `path` is a folder; the old file is then unchanged.
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
                stream.close()  # Windows cannot move an open file
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
    """Remove the hidden files that dead processes left in a folder; a process searches each folder only once."""
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
    """Flush a file's contents, or a folder's list of names, to the disk, so that they survive a power cut."""
    with contextlib.suppress(OSError):  # not every system can flush a folder
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def _hidden(folder: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """A new hidden file, locked while it is written, and removed at the end unless it was moved."""
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
