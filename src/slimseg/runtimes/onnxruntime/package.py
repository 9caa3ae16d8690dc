"""Imports the optional `onnxruntime` package, or states how to install it."""

from __future__ import annotations

from types import ModuleType

from slimseg.runtimes import optional_package

INSTALL = "pip install 'slimseg[onnxruntime]'"


def available() -> bool:
    """Whether onnxruntime can be imported; checked without importing it."""
    return optional_package.is_available("onnxruntime")


def require() -> ModuleType:
    """The module `onnxruntime`. It loads native code, so call this only in the child process.

    Raises:
        RuntimeFailure: onnxruntime is not installed, or does not load.
    """
    return optional_package.required("onnxruntime", ".onnx", INSTALL)
