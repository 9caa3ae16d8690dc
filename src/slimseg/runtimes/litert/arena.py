"""Refuses a `.tflite` whose tensors need absurd amounts of memory, before the runtime takes them.

LiteRT lays the tensors that are alive at once into one block, its arena.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from slimseg import memory_bounds
from slimseg.runtimes.litert import costs


def excess(tensors: costs.Tensors, graph: Any, file_bytes: int) -> str:
    """What is too much, as the end of a sentence about the file; empty where nothing is."""
    shape = tensors.shape(int(graph.inputs[0]))
    size = (shape[1], shape[2]) if len(shape) == 4 else (0, 0)
    there = file_bytes + sum(_bytes(tensors, int(index)) for index in graph.inputs)
    for operator, made, peak in _demands(tensors, graph):
        said = memory_bounds.excess(made, peak, there, size, f"the operator {tensors.op_name(operator)}")
        if said:
            return said
    return ""


def _demands(tensors: costs.Tensors, graph: Any) -> Iterator[tuple[Any, int, int]]:
    """Each operator, the bytes of what it makes, and the most that are alive at once up to it."""
    operators = graph.operators or []
    last_use = {index: number for number, each in enumerate(operators) for index in tensors.inputs(each)}
    last_use.update({int(index): len(operators) for index in graph.outputs})
    alive = {int(index): _bytes(tensors, int(index)) for index in graph.inputs}
    total = sum(alive.values())
    peak = total
    for number, operator in enumerate(operators):
        made = 0
        for index in (int(each) for each in operator.outputs if not tensors.is_constant(int(each))):
            made = max(made, _bytes(tensors, index))
            total += _bytes(tensors, index) - alive.get(index, 0)
            alive[index] = _bytes(tensors, index)
        peak = max(peak, total)
        yield operator, made, peak
        for index in {*tensors.inputs(operator), *(int(each) for each in operator.outputs)}:
            if last_use.get(index, -1) <= number:
                total -= alive.pop(index, 0)


def _bytes(tensors: costs.Tensors, index: int) -> int:
    return max(0, tensors.bytes(index))  # a side that is not known is -1
