"""The operator codes of a file: the table of kinds of operators, which each operator refers to by index."""

from __future__ import annotations

from typing import Any

from ai_edge_litert import schema_py_generated as schema

from slimseg.tflite import costs


def index(model: Any, code: int, version: int | None = None) -> int:
    """The index of an operator code in a `ModelT`, of any version if None; the code is added if it is missing."""
    for number, entry in enumerate(model.operatorCodes):
        if costs.op_code(entry) == code and version in (None, entry.version):
            return number
    entry = schema.OperatorCodeT()
    entry.builtinCode = entry.deprecatedBuiltinCode = code
    entry.version = version or 1
    model.operatorCodes.append(entry)
    return len(model.operatorCodes) - 1
