"""Temporary folders, all inside one folder of this process, which is removed when the process ends.

    /tmp/slimseg-scratch-1a2b3c4d/      the folder of this process
        owner                           a file that is locked while the process lives
        tmpxyz/                         a folder returned by `folder`
        ...                             and files of the child process that runs the runtimes (runtimes/child.py)

A killed process leaves its folder behind; the next process that needs such a folder removes it.
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
    """Within the block, everything that this process creates with `tempfile` goes into a new temporary folder.

    Only for calls of libraries that create temporary files, which would otherwise remain if the process is killed.
    """
    before = tempfile.tempdir
    with folder() as path:
        tempfile.tempdir = str(path)
        try:
            yield
        finally:
            tempfile.tempdir = before


def root() -> Path:
    """This process's folder, which contains all its temporary folders."""
    return _root(os.getpid(), Path(tempfile.gettempdir()))


def clear() -> None:
    """Remove the folders of dead processes."""
    _clear(Path(tempfile.gettempdir()))


@functools.cache
def _root(process: int, place: Path) -> Path:
    _clear(place)
    while True:
        path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=place))
        with contextlib.suppress(FileNotFoundError):  # another process removed it as abandoned before it was locked
            owner = lock.acquire(path / _OWNER)
            break
    assert owner is not None, "the name is new, so no other process can hold it"

    def remove() -> None:
        if os.getpid() == process:  # not in a forked worker, which inherits this exit handler
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
    with contextlib.suppress(OSError):  # the folder is not empty, as its process lives
        path.rmdir()  # the folder of a process that died before it could create the lock
