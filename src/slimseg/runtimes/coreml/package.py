"""The optional `coremltools` package, or one sentence on how to get it."""

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
    """Whether coremltools can be imported here; nothing is imported to find out."""
    return importlib.util.find_spec("coremltools") is not None


def require() -> ModuleType:
    """The module `coremltools`, without what it says on import of frameworks that are not used here.

    Raises:
        UserError: it is not installed, or does not load.
    """
    for name in ("coremltools", "torch.utils._pytree"):  # the latter speaks of what coremltools imports
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            import coremltools
    except ImportError as error:
        raise UserError(
            f"the coremltools package is not there to write .mlpackage files ({error}): {INSTALL}"
        ) from error
    return coremltools  # type: ignore[no-any-return]
