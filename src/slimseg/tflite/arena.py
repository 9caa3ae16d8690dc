"""Refuses a `.tflite` whose tensors need absurd amounts of memory, before the runtime allocates it.

The runtime puts all tensors that are in use at the same time into one block of memory, its arena.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from slimseg import memory_bounds
from slimseg.memory_bounds import Step
from slimseg.tflite import costs


def excess(tensors: costs.Tensors, graph: Any, file_bytes: int) -> str:
    """Which step needs too much memory, as the end of a sentence about the file; empty if none does."""
    shape = tensors.shape(int(graph.inputs[0]))
    size = (shape[1], shape[2]) if len(shape) == 4 else (0, 0)
    steps = list(_steps(tensors, graph))
    there = file_bytes + sum(steps[0].makes.values())
    for step, at_once in list(zip(steps, memory_bounds.bytes_at_once(steps), strict=True))[1:]:
        if said := memory_bounds.excess(step, at_once, there, size):
            return said
    return ""


def _steps(tensors: costs.Tensors, graph: Any) -> Iterator[Step]:
    """Steps of a run: the inputs, the operators in order, and the outputs, which stay in memory until the end."""
    yield Step("the input", _sizes(tensors, graph.inputs), ())
    for operator in graph.operators or []:
        made = (index for index in operator.outputs if not tensors.is_constant(int(index)))
        where = f"the operator {tensors.op_name(operator)}"
        yield Step(where, _sizes(tensors, made), tensors.inputs(operator))
    yield Step("the output", {}, [int(index) for index in graph.outputs])


def _sizes(tensors: costs.Tensors, indices: Iterable[int]) -> dict[int, int]:
    """Size in bytes of each tensor, by its index."""
    return {int(index): max(0, tensors.bytes(int(index))) for index in indices}  # an unknown dimension is -1
