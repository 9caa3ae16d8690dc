"""The argument of every lowering, and operations that many of them need."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import fx, nn

from slimseg.graph.shapes import Shape

Var = Any  # a value of the MIL program under construction


@dataclass(frozen=True)
class Step:
    """One node to write: its layer, the values that it reads, the name and shape (NCHW) of its result."""

    mb: Any  # coremltools' MIL builder
    node: fx.Node
    layer: nn.Module
    inputs: tuple[Var, ...]
    name: str
    padding: tuple[int, int, int, int]  # zero padding (left, right, top, bottom) of a pad node before it
    input_shapes: tuple[Shape, ...]  # NCHW; the first without that padding
    shape: Shape  # NCHW, of the result
    flexible: bool  # whether height and width are symbols in MIL; the shapes above are then those of the default size

    def named(self, part: str) -> str:
        """A name for an intermediate operation of the node."""
        return f"{self.name}_{part}"


Lowerings = dict[type[nn.Module], Callable[[Step, Any], Var]]


def cut(step: Step, source: Var, begin: Sequence[int], end: Sequence[int], name: str | None = None) -> Var:
    """`source[begin[0]:end[0], begin[1]:end[1], ...]`; an end of 0 or less counts from the end of the axis."""
    return step.mb.slice_by_index(
        x=source,
        begin=list(begin),
        end=list(end),
        end_mask=[stop == 0 for stop in end],
        name=name or step.name,
    )
