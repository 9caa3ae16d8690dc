"""Attributes the kernels that the runtime ran to the file's operators.

A built-in kernel reports its operator. XNNPACK does not: for each delegated part of the graph it reports its own
operators, in order, under its own names. Some are fused with a neighbour (activations, pads), some are split (a
concatenation is one copy per input), some are added (transposes, conversions). So

1. the graph is partitioned as TFLite does it, into alternating sets of delegated and of built-in operators;
2. within a part, kernels are aligned to operators by dynamic programming, both in order: each kernel belongs to one
   operator or to none, with the least total cost, where a cost measures how badly a kernel's name fits an operator.
"""

from __future__ import annotations

from collections.abc import Sequence

from slimseg.runtimes.litert.profiling.kernel_names import FOLDED, PREPARED, SLIGHT, SPLIT, Kind, misfit
from slimseg.runtimes.litert.profiling.trace import BUILTIN, DELEGATED, Kernel
from slimseg.tflite.file import Operator

_DROP, _MISS, _MISS_FOLDED, _SECOND = 6.0, 5.0, 0.5, 3.0


def attribute(operators: Sequence[Operator], kernels: Sequence[Kernel]) -> list[int | None]:
    """For each kernel in order of execution, the index of the operator that it computes, or None if none fits."""
    owners: list[int | None] = [k.index if k.type == BUILTIN and k.index < len(operators) else None for k in kernels]
    builtin = {owner for owner in owners if owner is not None}
    parts = partition(operators, builtin)
    groups = _groups(kernels)
    if len(parts) != len(
        groups
    ):  # a part without kernels, or split in another way: align all parts at once, in order of execution
        parts = [[operator for part in parts for operator in part]]
        groups = [[position for group in groups for position in group]]
    for part, group in zip(parts, groups, strict=True):
        kinds = [Kind(operator.op, operator.activated, operator.tabular) for operator in part]
        aligned = align(kinds, [kernels[position].tag for position in group])
        for position, owner in zip(group, aligned, strict=True):
            owners[position] = None if owner is None else part[owner].index
    return owners


def partition(operators: Sequence[Operator], builtin: set[int]) -> list[list[Operator]]:
    """The delegated parts of a graph, in order of execution, as TFLite's `PartitionGraphIntoIndependentNodeSubsets`.

    A part takes operators of one kind, delegated or built-in, whose inputs are computed, until there are no more; the
    next part takes operators of the other kind.
    """
    made = {tensor for operator in operators for tensor in operator.outputs}
    ready: set[int] = set()
    waiting = list(operators)
    parts: list[list[Operator]] = []
    while waiting:
        part = _next_part(waiting, builtin, made, ready)
        if not part:  # operators form a cycle: an invalid file
            break
        taken = {operator.index for operator in part}
        waiting = [operator for operator in waiting if operator.index not in taken]
        if part[0].index not in builtin:
            parts.append(part)
    return parts


def _next_part(waiting: Sequence[Operator], builtin: set[int], made: set[int], ready: set[int]) -> list[Operator]:
    part: list[Operator] = []
    taken: set[int] = set()
    kind: bool | None = None
    grown = True
    while grown:
        grown = False
        for operator in waiting:
            if operator.index in taken or any(i in made and i not in ready for i in operator.inputs):
                continue
            own_kind = operator.index in builtin
            if kind is None:
                kind = own_kind
            if own_kind == kind:
                part.append(operator)
                taken.add(operator.index)
                ready.update(operator.outputs)
                grown = True
    return sorted(part, key=lambda operator: operator.index)


def _groups(kernels: Sequence[Kernel]) -> list[list[int]]:
    """Positions of the delegated kernels by part: a part ends before a built-in kernel or where indices restart."""
    groups: list[list[int]] = []
    previous: Kernel | None = None
    for position, kernel in enumerate(kernels):
        if kernel.type == DELEGATED:
            if previous is None or previous.type != DELEGATED or kernel.index <= previous.index:
                groups.append([])
            groups[-1].append(position)
        previous = kernel
    return groups


def align(kinds: Sequence[Kind], tags: Sequence[str]) -> list[int | None]:
    """For each tag, the position of its operator in `kinds`, or None; positions never decrease.

    Needleman-Wunsch alignment with one-to-many matches: `best[j]` has the least cost of aligning the tags so far when
    operator j is the current one, in two states: before and after it has been given a kernel.
    """
    infinity = float("inf")
    fresh, used = 0, 1
    costs = {(kind, tag): misfit(kind, tag) for kind in set(kinds) for tag in set(tags)}
    miss = [_MISS_FOLDED if kind.op in FOLDED or kind.tabular else _MISS for kind in kinds]
    second = [SLIGHT if kind.op in SPLIT | PREPARED or kind.activated else _SECOND for kind in kinds]
    best = [[infinity, infinity] for _ in range(len(kinds) + 1)]
    best[0][fresh] = 0.0
    came: list[list[list[tuple[str, int]]]] = []  # by tag, operator and state: the move that led there
    came.append(_advance(best, miss))
    for tag in tags:
        after = [[infinity, infinity] for _ in range(len(kinds) + 1)]
        moves = [[("", fresh), ("", fresh)] for _ in range(len(kinds) + 1)]
        for j in range(len(kinds) + 1):
            for state in (fresh, used):
                if best[j][state] + _DROP < after[j][state]:
                    after[j][state], moves[j][state] = best[j][state] + _DROP, ("drop", state)
                if j < len(kinds):
                    cost = best[j][state] + costs[kinds[j], tag] + (second[j] if state == used else 0.0)
                    if cost < after[j][used]:
                        after[j][used], moves[j][used] = cost, ("take", state)
        for j, row in enumerate(_advance(after, miss)):
            if row[fresh][0]:
                moves[j][fresh] = row[fresh]
        best = after
        came.append(moves)
    return _trace(came, len(kinds), len(tags))


def _advance(best: list[list[float]], miss: Sequence[float]) -> list[list[tuple[str, int]]]:
    """Add the moves to the next operator: free if the current one has a kernel, else at the cost of a miss."""
    moves = [[("", 0), ("", 0)] for _ in best]
    for j in range(1, len(best)):
        for state, cost in ((0, miss[j - 1]), (1, 0.0)):
            if best[j - 1][state] + cost < best[j][0]:
                best[j][0], moves[j][0] = best[j - 1][state] + cost, ("next", state)
    return moves


def _trace(came: list[list[list[tuple[str, int]]]], j: int, i: int) -> list[int | None]:
    owners: list[int | None] = [None] * i
    state = 0
    while i or j:
        move, before = came[i][j][state]
        if move == "next":
            j -= 1
        elif move == "take":
            i -= 1
            owners[i] = j
        else:
            i -= 1
        state = before
    return owners
