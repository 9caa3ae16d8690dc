"""Joins the kernels that onnxruntime ran to the operators of the file.

onnxruntime rewrites a network when it loads it: it fuses operators, changes the layout of maps, runs convolutions on 8
bits. A kernel keeps the name of the last operator that it computes, or of its result, with something added:

    relu_nchwc          a convolution and the ReLU behind it, in blocks of channels
    ReorderOutput       a kernel of its own, which changes the layout

An operator without a kernel of its name is part of the first kernel behind it; but a sum is part of the convolution
before it, which adds the other value to its own, and so is an activation that the limits of 8 bits make superfluous.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from slimseg.runtimes.onnxruntime.file import Operator

_MARK = "_kernel_time"
_FUSED = "fused "
_TAKEN_IN = ("Add", "Relu", "Clip")  # by the kernel before them


@dataclass(frozen=True)
class Kernel:
    """One kernel of a run, with the shapes of the activations that it reads and of its result (NCHW)."""

    name: str
    op: str
    inputs: tuple[tuple[int, ...], ...]
    output: tuple[int, ...]


def of_event(name: str) -> str:
    """A kernel's name from that of its event in the profile."""
    return name.removesuffix(_MARK)


def parts(operators: Sequence[Operator], kernels: Sequence[Kernel]) -> list[tuple[Operator, ...]]:
    """For each kernel the file's operators that it computes, in the file's order; empty for one of its own."""
    places = {name: place for place, each in enumerate(operators) for name in (each.result, each.node) if name}
    own: dict[int, int] = {}  # by operator, the kernel that is named after it
    for number, kernel in enumerate(kernels):
        if (place := _place(kernel.name, places)) is not None:
            own.setdefault(place, number)
    readers: dict[str, list[int]] = {}
    for place, operator in enumerate(operators):
        for name in operator.inputs:
            readers.setdefault(name, []).append(place)
    found: list[list[Operator]] = [[] for _ in kernels]
    computed: dict[int, int | None] = {}
    for place in reversed(range(len(operators))):
        behind = (computed[reader] for reader in readers.get(operators[place].result, []) if reader > place)
        computed[place] = own.get(place, next((each for each in behind if each is not None), None))
    makers = {operator.result: place for place, operator in enumerate(operators)}
    for place, operator in enumerate(operators):
        if operator.op in _TAKEN_IN and place not in own:
            before = (computed[makers[name]] for name in operator.inputs if name in makers)
            computed[place] = max((each for each in before if each is not None), default=computed[place])
        kernel_place = computed[place]
        if kernel_place is not None and not operator.converts:
            found[kernel_place].append(operator)
    return [tuple(each) for each in found]


def _place(kernel: str, places: Mapping[str, int]) -> int | None:
    """The operator that a kernel is named after: of the names that its own begins with, the longest."""
    name = kernel.removeprefix(_FUSED)
    for end in range(len(name), 0, -1):
        if name[:end] in places and not name[end : end + 1].isalnum():
            return places[name[:end]]
    return None
