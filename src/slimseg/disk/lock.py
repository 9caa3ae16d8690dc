"""A lock on a file that a process holds until it lets go or dies, however it dies: the system lets go for it.

A process id in a file would not do: after a death the same number can be given to another process.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows: every lock is granted, and nothing counts as left behind
    fcntl = None  # type: ignore[assignment]

_FLAGS = os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)


def acquire(path: Path) -> BinaryIO | None:
    """Make the file `path` if there is none, and lock it.

    Returns:
        The open file, whose closing releases the lock; None where another process holds it.

    Raises:
        OSError: the file cannot be made or opened.
    """
    while True:
        descriptor = os.open(path, _FLAGS | os.O_CREAT, 0o666)  # less the umask, like any file of the user's
        if _locked(descriptor) is False:
            os.close(descriptor)
            return None
        if _is_at(path, descriptor):
            return os.fdopen(descriptor, "r+b")
        os.close(descriptor)  # its last owner removed it in between: what is locked is no longer there


def is_abandoned(path: Path) -> bool:
    """Whether a file is there whose lock nobody holds: the process that made it is dead."""
    try:
        descriptor = os.open(path, _FLAGS)
    except OSError:
        return False  # gone, or of another user
    try:
        return _locked(descriptor) is True and _is_at(path, descriptor)
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool | None:
    """Whether the lock could be had; None where the system or this file system has no locks."""
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
