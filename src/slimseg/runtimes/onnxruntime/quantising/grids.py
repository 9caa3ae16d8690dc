"""The 8-bit grids of an int8 `.tflite`: what its operators write and read, by the names of the float network's values.

The file has more tensors than the network has values: conversions, paddings of their own, parts of layers that are
spelled differently in 8 bits. Names that `known` does not have are followed back to the value that they hold, as long
as operators on the way only move it.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from slimseg.graph.names import node_name
from slimseg.tflite import costs, file

Array = np.ndarray[Any, Any]
_CONVERSIONS = ("QUANTIZE", "DEQUANTIZE")
_MOVES = (*_CONVERSIONS, "PAD", "PADV2", "RESHAPE", "TRANSPOSE", "SLICE", "DEPTH_TO_SPACE", "SPACE_TO_DEPTH")
_ORDER = re.compile(r"_(as|to)_\d+$")  # ends the name of a value whose dimensions are stored in another order
_SIGNED = 128  # added to the zero point of int8, it gives that of the same grid in uint8


@dataclass(frozen=True)
class Grid:
    """real = (integer − zero_point) · scale, with integers from 0 to 255."""

    scale: float
    zero_point: int


@dataclass(frozen=True)
class Constant:
    """The grid of a constant in int8: one scale for each of its channels, or one."""

    scales: Array
    zero_point: int


@dataclass
class Grids:
    """Grids by names of values. A value that is in float32, or in integers without a scale, has None."""

    written: dict[str, Grid | None] = field(default_factory=dict)  # by the value that an operator writes
    # By (value, written value): the grid of a value as the operator that writes the other one reads it.
    read: dict[tuple[str, str], Grid | None] = field(default_factory=dict)
    constants: dict[str, list[Constant]] = field(default_factory=dict)  # by the value that an operator writes
    input: Grid | None = None  # of a file that takes bytes
    takes_integers: bool = False
    gives_integers: bool = False


def read(path: Path, known: Collection[str]) -> Grids:
    """The grids of a file.

    Args:
        known: names of the float network's values.

    Raises:
        ModelError: the file is damaged.
    """
    return _Reader(file.parse(path.read_bytes(), path), known).run()


class _Reader:
    """Follows one file's operators in order."""

    def __init__(self, model: Any, known: Collection[str]) -> None:
        self.model, self.known = model, known
        self.graph = model.subgraphs[0]
        self.tensors = costs.Tensors(model)
        self.sources: dict[int, str] = {}  # by tensor, the value that it holds

    def run(self) -> Grids:
        found = Grids()
        source, result = (self.tensors.tensor(int(each[0])) for each in (self.graph.inputs, self.graph.outputs))
        found.takes_integers, found.gives_integers = (costs.dtype_name(each) != "float32" for each in (source, result))
        found.input = _grid(source)
        for operator in self.graph.operators or []:
            self._visit(operator, found)
        return found

    def _visit(self, operator: Any, found: Grids) -> None:
        target = int(operator.outputs[0])
        code, name = self.tensors.op_name(operator), self._own_name(target)
        activations = self.tensors.activations(operator)
        if code in _CONVERSIONS or (name not in self.known and code in _MOVES and len(activations) == 1):
            self.sources[target] = self._source(activations[0]) if activations else name
            return
        found.written[name] = _grid(self.tensors.tensor(target))
        for index in activations:
            found.read.setdefault((self._source(index), name), _grid(self.tensors.tensor(index)))
        learnt = (self.tensors.tensor(index) for index in self.tensors.parameters(operator))
        found.constants[name] = [_constant(each) for each in learnt if costs.dtype_name(each) == "int8"]

    def _source(self, index: int) -> str:
        return self.sources.get(index, self._own_name(index))

    def _own_name(self, index: int) -> str:
        """The name of a tensor, without the order in which it is stored."""
        name = str(self.tensors.tensor(index).name.decode(errors="replace"))
        spellings = (name, node_name(name), _ORDER.sub("", name))
        return next((each for each in spellings if each in self.known), name)


def _grid(tensor: Any) -> Grid | None:
    kind, told = costs.dtype_name(tensor), tensor.quantization
    if kind not in ("int8", "uint8") or told is None or told.scale is None or not len(told.scale):
        return None
    return Grid(float(told.scale[0]), int(told.zeroPoint[0]) + _SIGNED * (kind == "int8"))


def _constant(tensor: Any) -> Constant:
    told = tensor.quantization
    zeros = told.zeroPoint if told.zeroPoint is not None and len(told.zeroPoint) else (0,)
    return Constant(np.asarray(told.scale, np.float32), int(zeros[0]))
