"""A lock on a file, which a process holds until it releases it or dies: then the operating system releases it.

A process id stored in a file would not suffice, as the id of a dead process can be given to another one.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows: every lock is granted, and no file counts as abandoned
    fcntl = None  # type: ignore[assignment]

_FLAGS = os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)


def acquire(path: Path) -> BinaryIO | None:
    """Create the file `path` if it does not exist, and lock it.

    Returns:
        The open file; closing it releases the lock. None if another process holds the lock.

    Raises:
        OSError: the file cannot be created or opened.
    """
    while True:
        descriptor = os.open(path, _FLAGS | os.O_CREAT, 0o666)  # the umask applies, as to all files of the user
        if _locked(descriptor) is False:
            os.close(descriptor)
            return None
        if _is_at(path, descriptor):
            return os.fdopen(descriptor, "r+b")
        os.close(descriptor)  # its last owner has just removed the file that is locked: create a new one


def is_abandoned(path: Path) -> bool:
    """Whether a file exists but no process holds its lock, because the process that created it is dead."""
    try:
        descriptor = os.open(path, _FLAGS)
    except OSError:
        return False  # it does not exist, or belongs to another user
    try:
        return _locked(descriptor) is True and _is_at(path, descriptor)
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool | None:
    """Whether the lock was granted; None if the operating system or the file system does not support locks."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path, follow_symlinks=False))
    except OSError:
        return False
