"""The first operators of a file, as a file of its own whose output is the result of the last of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from slimseg.tflite import file


def until(model: Any, last: int) -> bytes:
    """The bytes of a `ModelT` up to operator number `last`, without operators that its result does not need.

    The model is not changed; the copy keeps its metadata, but its description no longer fits its output.
    """
    graph = model.subgraphs[0]
    operators, outputs, signatures = graph.operators, graph.outputs, model.signatureDefs
    result = int(operators[last].outputs[0])
    try:
        graph.operators = _needed(operators[: last + 1], result)
        graph.outputs, model.signatureDefs = np.asarray([result], np.int32), None
        return file.pack(model)
    finally:
        graph.operators, graph.outputs, model.signatureDefs = operators, outputs, signatures


def _needed(operators: list[Any], result: int) -> list[Any]:
    wanted, kept = {result}, []
    for operator in reversed(operators):
        if wanted & {int(each) for each in operator.outputs}:
            wanted |= {int(each) for each in operator.inputs if each >= 0}
            kept.append(operator)
    return kept[::-1]
