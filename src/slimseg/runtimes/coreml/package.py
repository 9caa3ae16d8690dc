"""Imports the optional `coremltools` package, or states how to install it."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import warnings
from types import ModuleType

from slimseg.errors import UserError

INSTALL = "pip install 'slimseg[coreml]'"


def available() -> bool:
    """Whether coremltools can be imported; checked without importing it."""
    return importlib.util.find_spec("coremltools") is not None


def require() -> ModuleType:
    """The module `coremltools`, imported without its messages about frameworks that slimseg does not use.

    Raises:
        UserError: coremltools is not installed, or does not load.
    """
    for name in ("coremltools", "torch.utils._pytree"):  # the latter logs messages about coremltools' imports
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            import coremltools
    except ImportError as error:
        raise UserError(
            f"the coremltools package, which writes .mlpackage files, is not installed ({error}): {INSTALL}"
        ) from error
    return coremltools  # type: ignore[no-any-return]
