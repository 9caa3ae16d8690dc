"""Imports the optional `ncnn` package, or states how to install it."""

from __future__ import annotations

from types import ModuleType

from slimseg.runtimes import optional_package

INSTALL = "pip install 'slimseg[ncnn]'"


def available() -> bool:
    """Whether ncnn can be imported; checked without importing it."""
    return optional_package.is_available("ncnn")


def require() -> ModuleType:
    """The module `ncnn`. It loads native code, so call this only in the child process.

    Raises:
        RuntimeFailure: ncnn is not installed, or does not load.
    """
    return optional_package.required("ncnn", ".param", INSTALL)
