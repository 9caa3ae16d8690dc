"""Finds operators that XNNPACK does not run, and float islands in a quantised file, with the time that they cost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from slimseg.results import Fallback, Island
from slimseg.tflite.file import Operator

CONVERSIONS = frozenset({"QUANTIZE", "DEQUANTIZE", "CAST", "TRANSPOSE"})
_TO_FLOAT, _FROM_FLOAT = "DEQUANTIZE", "QUANTIZE"


def fallbacks(
    operators: Sequence[Operator], builtin: set[int], spent_ms: Sequence[float], total_ms: float
) -> tuple[Fallback, ...]:
    """Operators on built-in kernels by kind, the most expensive kind first.

    A conversion is counted with the first kind that has an operator next to it. If it runs on a built-in kernel and
    has no such neighbour, it is a kind of its own.

    Args:
        builtin: indices of operators that ran on built-in kernels.
        spent_ms: milliseconds of each operator.
        total_ms: latency of the network in milliseconds.
    """
    around = _neighbours(operators)
    kinds: dict[str, list[Operator]] = defaultdict(list)
    counted: set[int] = set()
    for operator in operators:
        if operator.index in builtin and operator.op not in CONVERSIONS:
            kinds[operator.op].append(operator)
    conversion_ms: dict[str, float] = {}
    for op, own in kinds.items():
        found = {i for each in own for i in around[each.index] if operators[i].op in CONVERSIONS} - counted
        counted |= found
        conversion_ms[op] = sum(spent_ms[i] for i in found)
    for operator in operators:
        if operator.index in builtin - counted and operator.op in CONVERSIONS:
            kinds[operator.op].append(operator)
    made = []
    for op, own in kinds.items():
        kernel_ms = sum(spent_ms[each.index] for each in own)
        layers = tuple(each.name for each in own)
        made.append(Fallback(op, layers, kernel_ms, conversion_ms.get(op, 0.0), total_ms))
    return tuple(sorted(made, key=lambda each: -each.share))


def islands(operators: Sequence[Operator], spent_ms: Sequence[float], total_ms: float) -> tuple[Island, ...]:
    """Groups of connected float operators that follow a DEQUANTIZE, those with the most expensive conversions first."""
    around = _neighbours(operators)
    float_work = {operator.index for operator in operators if _is_float(operator)}
    found = []
    for inside in _components(float_work, around):
        edge = {i for each in inside for i in around[each]} - inside
        conversions = {i for i in edge if operators[i].op in (_TO_FLOAT, _FROM_FLOAT) and operators[i].inputs}
        if not any(operators[i].op == _TO_FLOAT for i in conversions):
            continue
        conversion_ms = sum(spent_ms[i] for i in conversions)
        own = sorted(inside)
        found.append(
            Island(
                layers=tuple(operators[i].name for i in own),
                ops=tuple(dict.fromkeys(operators[i].op for i in own)),
                inside_ms=sum(spent_ms[i] for i in own),
                conversion_ms=conversion_ms,
                whole_ms=total_ms,
            )
        )
    return tuple(sorted(found, key=lambda island: -island.conversion_ms))


def _is_float(operator: Operator) -> bool:
    return operator.op not in (_TO_FLOAT, _FROM_FLOAT) and "float32" in (operator.dtype, *operator.input_dtypes)


def _components(members: set[int], around: Mapping[int, set[int]]) -> Iterable[set[int]]:
    left = set(members)
    while left:
        component, open_ = set[int](), [min(left)]
        while open_:
            index = open_.pop()
            if index in left:
                left.remove(index)
                component.add(index)
                open_ += around[index] & left
        yield component


def _neighbours(operators: Sequence[Operator]) -> dict[int, set[int]]:
    """For every operator, the operators that compute its inputs or read its outputs."""
    made_by = {tensor: operator.index for operator in operators for tensor in operator.outputs}
    around: dict[int, set[int]] = {operator.index: set() for operator in operators}
    for operator in operators:
        for tensor in operator.inputs:
            maker = made_by.get(tensor)
            if maker is not None:
                around[operator.index].add(maker)
                around[maker].add(operator.index)
    return around
