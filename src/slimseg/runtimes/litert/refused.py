"""Explains why LiteRT refused a file."""

from __future__ import annotations

import re

from slimseg.errors import ModelError, RuntimeFailure
from slimseg.tflite.file import File

_UNRESOLVED = re.compile(r"unresolved custom op: (\S+?)\.?(?:\s|$)")


def explained(described: File, error: RuntimeFailure) -> RuntimeFailure | ModelError:
    """The error to raise for a failure: if a custom operator caused it, a ModelError that names the operator."""
    found = _UNRESOLVED.search(str(error))
    if not found:
        return error
    return ModelError(
        f"{described.path} has the custom operator {found[1]}, for which LiteRT and XNNPACK have no kernel: "
        "export the model without it"
    )
