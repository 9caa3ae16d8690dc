"""The optional `ncnn` package, or one sentence on how to get it."""

from __future__ import annotations

import importlib.util
from types import ModuleType

from slimseg.errors import RuntimeFailure

INSTALL = "pip install 'slimseg[ncnn]'"


def available() -> bool:
    """Whether ncnn can be imported here; nothing is imported to find out."""
    found = importlib.util.find_spec("ncnn")
    return found is not None and found.origin is not None  # a folder that happens to be called so has none


def require() -> ModuleType:
    """The module `ncnn`: native code, so only the child process should ask for it.

    Raises:
        RuntimeFailure: it is not installed, or does not load.
    """
    if not available():
        raise RuntimeFailure(f"the ncnn package is not there to run .param files: {INSTALL}")
    try:
        import ncnn
    except ImportError as error:
        raise RuntimeFailure(f"the ncnn package does not load ({error}): {INSTALL}") from error
    return ncnn  # type: ignore[no-any-return]
