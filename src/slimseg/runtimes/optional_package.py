"""Imports a runtime's own package, which is an extra of slimseg, or states how to install it."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

from slimseg.errors import RuntimeFailure


def is_available(name: str) -> bool:
    """Whether a package can be imported; checked without importing it."""
    found = importlib.util.find_spec(name)
    return found is not None and found.origin is not None  # a folder that happens to have that name has no origin


def required(name: str, files: str, install: str) -> ModuleType:
    """The module of a package. It loads native code, so call this only in the child process.

    Args:
        files: the files that it runs, for messages: ".onnx".
        install: the command that installs it.

    Raises:
        RuntimeFailure: it is not installed, or does not load.
    """
    if not is_available(name):
        raise RuntimeFailure(f"the {name} package, which runs {files} files, is not installed: {install}")
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise RuntimeFailure(f"the {name} package cannot be imported ({error}): {install}") from error
