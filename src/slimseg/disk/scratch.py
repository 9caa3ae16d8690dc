"""Temporary folders, all of them inside one folder of this process, which goes when the process ends.

    /tmp/slimseg-scratch-1a2b3c4d/      of this process
        owner                           locked while the process lives
        tmpxyz/                         what `folder` gives
        ...                             and whatever the child process of the runtimes makes (runtimes/child.py)

A process that is killed leaves its folder; the next one that needs such a folder removes it.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from slimseg.disk import lock

_PREFIX = "slimseg-scratch-"
_OWNER = "owner"


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """A new empty folder, removed at the end of the block."""
    path = Path(tempfile.mkdtemp(dir=root()))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def for_libraries() -> Iterator[None]:
    """Within the block, what any library of this process makes with `tempfile` goes into a folder of this kind.

    Only for calls of libraries that make temporary files of their own and would leave them where the process is killed.
    """
    before = tempfile.tempdir
    with folder() as path:
        tempfile.tempdir = str(path)
        try:
            yield
        finally:
            tempfile.tempdir = before


def root() -> Path:
    """The folder of this process that holds all others."""
    return _root(os.getpid(), Path(tempfile.gettempdir()))


def clear() -> None:
    """Remove the folders of processes that are dead."""
    _clear(Path(tempfile.gettempdir()))


@functools.cache
def _root(process: int, place: Path) -> Path:
    _clear(place)
    while True:
        path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=place))
        with contextlib.suppress(FileNotFoundError):  # another process took the empty folder for a dead one's
            owner = lock.acquire(path / _OWNER)
            break
    assert owner is not None, "the name is new, so no other process can hold it"

    def remove() -> None:
        if os.getpid() == process:  # a forked worker has its parent's list of what to do at exit
            shutil.rmtree(path, ignore_errors=True)
            owner.close()

    atexit.register(remove)
    return path


def _clear(place: Path) -> None:
    with contextlib.suppress(OSError), os.scandir(place) as entries:
        for entry in entries:
            if entry.name.startswith(_PREFIX) and entry.is_dir(follow_symlinks=False) and _is_mine(entry):
                _remove_if_dead(Path(entry.path))


def _is_mine(entry: os.DirEntry[str]) -> bool:
    return not hasattr(os, "getuid") or entry.stat(follow_symlinks=False).st_uid == os.getuid()


def _remove_if_dead(path: Path) -> None:
    if lock.is_abandoned(path / _OWNER):
        shutil.rmtree(path, ignore_errors=True)
        return
    with contextlib.suppress(OSError):  # not empty: its process lives
        path.rmdir()  # one that died before it could lock anything
