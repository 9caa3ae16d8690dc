"""The argument of every lowering, and operators that many of them need."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import TensorProto
from torch import fx, nn

from slimseg.runtimes.onnxruntime.model import Array, ModelBuilder, Shape


@dataclass(frozen=True)
class Step:
    """One node to write: its layer, the values that it reads, the name and shape (NCHW) of its result."""

    builder: ModelBuilder
    node: fx.Node
    layer: nn.Module
    inputs: tuple[str, ...]
    name: str
    stem: str  # name of the first node that calls the same layer: its constants are stored once
    padding: tuple[int, int, int, int]  # zero padding (left, right, top, bottom) of a pad node before it
    input_shapes: tuple[Shape, ...]  # NCHW; the first without that padding
    shape: Shape  # NCHW, of the result

    def named(self, part: str) -> str:
        """A name for an inner value of the node."""
        return self.builder.free(f"{self.name}_{part}")

    def constant(self, part: str, values: Array) -> str:
        """A constant that belongs to the layer."""
        return self.builder.constant(self.builder.free(f"{self.stem}_{part}"), values)

    def integers(self, part: str, values: Sequence[int]) -> str:
        return self.builder.constant(self.named(part), np.asarray(values, np.int64))

    def number(self, part: str, value: float) -> str:
        return self.builder.constant(self.named(part), np.asarray(value, np.float32))

    def add(self, op: str, inputs: Sequence[str] | None = None, **attributes: Any) -> str:
        """Add the operator that gives the node's value, by default from the node's inputs."""
        return self.builder.node(op, self.inputs if inputs is None else inputs, self.name, self.shape, **attributes)

    def inner(
        self, op: str, part: str, inputs: Sequence[str], shape: Sequence[int] | None = None, **attributes: Any
    ) -> str:
        """Add an operator that gives an inner value, by default of the shape of the node's value."""
        return self.builder.node(op, inputs, self.named(part), self.shape if shape is None else shape, **attributes)


Lowerings = dict[type[nn.Module], Callable[[Step, Any], str]]
INT64 = TensorProto.INT64


def plain(op: str) -> Callable[[Step, Any], str]:
    """A lowering to an operator without settings on the node's inputs."""
    return lambda step, layer: step.add(op)
