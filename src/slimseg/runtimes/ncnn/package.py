"""Imports the optional `ncnn` package, or states how to install it."""

from __future__ import annotations

import importlib.util
from types import ModuleType

from slimseg.errors import RuntimeFailure

INSTALL = "pip install 'slimseg[ncnn]'"


def available() -> bool:
    """Whether ncnn can be imported; checked without importing it."""
    found = importlib.util.find_spec("ncnn")
    return found is not None and found.origin is not None  # a folder that happens to be named ncnn has no origin


def require() -> ModuleType:
    """The module `ncnn`. It loads native code, so call this only in the child process.

    Raises:
        RuntimeFailure: ncnn is not installed, or does not load.
    """
    if not available():
        raise RuntimeFailure(f"the ncnn package, which runs .param files, is not installed: {INSTALL}")
    try:
        import ncnn
    except ImportError as error:
        raise RuntimeFailure(f"the ncnn package cannot be imported ({error}): {INSTALL}") from error
    return ncnn  # type: ignore[no-any-return]
