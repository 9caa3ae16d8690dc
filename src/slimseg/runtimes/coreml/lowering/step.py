"""What every lowering is given, and the few operations that many of them need."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import fx, nn

from slimseg.graph.shapes import Shape

Var = Any  # a value of the MIL program that is being built


@dataclass(frozen=True)
class Step:
    """One node to write: its layer, the values it reads, the name and shape (NCHW) of the one it makes."""

    mb: Any  # coremltools' MIL builder
    node: fx.Node
    layer: nn.Module
    inputs: tuple[Var, ...]
    name: str
    padding: tuple[int, int, int, int]  # zero padding (left, right, top, bottom) of a pad node before it
    input_shapes: tuple[Shape, ...]  # NCHW; the first before that padding
    shape: Shape  # NCHW
    flexible: bool  # the sides of a map are symbols, and its shapes above those of the usual size

    def named(self, part: str) -> str:
        """For an operation on the way to the node's own."""
        return f"{self.name}_{part}"


Lowerings = dict[type[nn.Module], Callable[[Step, Any], Var]]


def cut(step: Step, source: Var, begin: Sequence[int], end: Sequence[int], name: str | None = None) -> Var:
    """`source[begin[0]:end[0], begin[1]:end[1], ...]`; an end of 0 or less counts from the far side."""
    return step.mb.slice_by_index(
        x=source,
        begin=list(begin),
        end=list(end),
        end_mask=[stop == 0 for stop in end],
        name=name or step.name,
    )
