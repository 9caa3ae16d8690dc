"""Which operators of a file the delegate runs: of those that it takes, one connected part, and what is copied.

TFLite divides a graph into parts of operators that can run one after another on one processor. The delegate runs only
the largest of its parts; all operators of the others stay on the CPU, although it takes them. Of parts of one size it
runs the first. Seen with ai-edge-litert 2.3.0, in chains of operators; the tests of this folder repeat it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from slimseg.runtimes.litert.profiling.attribution import partition
from slimseg.tflite.file import Operator


def run(model: Any, operators: Sequence[Operator], refused: Collection[int]) -> set[int]:
    """Numbers of the operators that the delegate runs.

    Operators that convert stored weights belong to those that read them, and count for no part.

    Args:
        model: the file's `ModelT`, and its operators.
        refused: numbers of the operators that it does not take.
    """
    constant = {each.index for each in operators if each.op == "DEQUANTIZE" and not each.inputs}
    found = partition([each for each in operators if each.index not in constant], set(refused) - constant)
    taken = {each.index for each in max(found, key=len, default=[])}
    stored = model.subgraphs[0].operators
    read = {int(tensor) for number in taken for tensor in stored[number].inputs}
    return taken | {number for number in constant if int(stored[number].outputs[0]) in read}
