"""Imports the optional `onnxruntime` package, or states how to install it."""

from __future__ import annotations

import importlib.util
from types import ModuleType

from slimseg.errors import RuntimeFailure

INSTALL = "pip install 'slimseg[onnxruntime]'"


def available() -> bool:
    """Whether onnxruntime can be imported; checked without importing it."""
    found = importlib.util.find_spec("onnxruntime")
    return found is not None and found.origin is not None  # a folder that happens to have that name has no origin


def require() -> ModuleType:
    """The module `onnxruntime`. It loads native code, so call this only in the child process.

    Raises:
        RuntimeFailure: onnxruntime is not installed, or does not load.
    """
    if not available():
        raise RuntimeFailure(f"the onnxruntime package, which runs .onnx files, is not installed: {INSTALL}")
    try:
        import onnxruntime  # type: ignore[import-untyped]
    except ImportError as error:
        raise RuntimeFailure(f"the onnxruntime package cannot be imported ({error}): {INSTALL}") from error
    return onnxruntime  # type: ignore[no-any-return]
