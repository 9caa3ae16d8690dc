"""Which value an int8 file rounds to whose range: asked of the quantiser itself, so that its rules are nowhere copied.

    Given   float file, each tensor with a made-up range that no other has          (probe)
    Result  in its int8 form every scale tells the tensor whose range it came from: its own (most), that of the
            concatenation which reads it, of the resize's or pool's source, or a constant of the operator (softmax)

A tensor that two operators read may be rounded once more on the way to one of them (a skip connection into a
concatenation, an input in float32): that is a grid of the edge. What stays in float32 has none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from slimseg.disk import scratch
from slimseg.runtimes.litert import costs, file
from slimseg.runtimes.litert.quantising import quantizer

STEPS = 255  # of 8 bits
_CONVERSIONS = ("QUANTIZE", "DEQUANTIZE")


@dataclass(frozen=True)
class Grid:
    """Where a value is rounded to: the 8-bit grid of the range of `leader`, or of a scale that no range changes."""

    leader: str | None
    scale: float = 0.0
    zero_point: int = 0


@dataclass(frozen=True)
class Grids:
    """Of one file, by the names of its tensors."""

    written: Mapping[str, Grid]  # as its operator writes it; tensors that stay in float32 are absent
    read: Mapping[tuple[str, str], Grid]  # (source, reader): as the operator that writes `reader` sees it, if otherwise
    operators: frozenset[str]  # by the tensors that they write
    per_channel: Mapping[str, bool]  # by the operator's output: whether its int8 constants have a scale per channel

    @property
    def leaders(self) -> frozenset[str]:
        """Tensors whose ranges matter."""
        grids = (*self.written.values(), *self.read.values())
        return frozenset(grid.leader for grid in grids if grid.leader is not None)


def probe(float_path: Path) -> Grids:
    """The grids that static int8 gives the tensors of a float `.tflite`.

    Raises:
        ModelError, RuntimeFailure: the file cannot be quantised.
    """
    model = file.read(float_path)
    source = model.inputs[0]
    computed = (operator.result for operator in model.operators if operator.dtype == "float32")
    names = list(dict.fromkeys((source.name, *computed)))
    ranges = {name: _made_up(number) for number, name in enumerate(names)}
    with scratch.folder() as folder:
        path = folder / "probe.tflite"
        quantizer.quantize_int8(float_path, path, [np.zeros(source.shape, np.float32)], ranges=ranges)
        return _Reader(file.parse(path.read_bytes(), path), names).run()


def _made_up(number: int) -> tuple[float, float]:
    """Ranges whose widths, and so scales, tell them apart, and none much wider than another."""
    return -1.0 - 0.01 * number, 2.0 + 0.01 * number


def _width(number: int) -> float:
    low, high = _made_up(number)
    return high - low


class _Reader:
    """Follows one quantised file's operators in order."""

    def __init__(self, model: Any, names: list[str]) -> None:
        self.tensors = costs.Tensors(model)
        self.operators = model.subgraphs[0].operators
        self.names = names
        # What the quantiser adds between two operators stands for the tensor before it.
        self.stands_for: dict[int, str] = {}

    def run(self) -> Grids:
        written: dict[str, Grid] = {}
        read: dict[tuple[str, str], Grid] = {}
        per_channel: dict[str, bool] = {}
        operators: set[str] = set()
        for operator in self.operators:
            target = int(operator.outputs[0])
            if self.tensors.op_name(operator) in _CONVERSIONS:
                self.stands_for[target] = self._source(int(operator.inputs[0]))
                continue
            operators.add(self._name(target))
            if (grid := self._grid(target)) is not None:
                written[self._name(target)] = grid
            for index in self.tensors.activations(operator):
                source, grid = self._source(index), self._grid(index)
                if grid is not None and grid != written.get(source):
                    read[source, self._name(target)] = grid
            scales = list(self._weight_scales(operator))
            if scales:
                per_channel[self._name(target)] = scales[0] > 1
        return Grids(written, read, frozenset(operators), per_channel)

    def _source(self, index: int) -> str:
        return self.stands_for.get(index, self._name(index))

    def _name(self, index: int) -> str:
        return str(self.tensors.tensor(index).name.decode(errors="replace"))

    def _grid(self, index: int) -> Grid | None:
        """None for a tensor in float32 or whole numbers without a scale."""
        tensor = self.tensors.tensor(index)
        if costs.dtype_name(tensor) != "int8" or tensor.quantization is None or tensor.quantization.scale is None:
            return None
        scale, zero_point = float(tensor.quantization.scale[0]), int(tensor.quantization.zeroPoint[0])
        number = round((scale * STEPS - _width(0)) / (_width(1) - _width(0)))
        if 0 <= number < len(self.names) and abs(scale * STEPS - _width(number)) < 1e-5:
            return Grid(self.names[number])
        return Grid(None, scale, zero_point)

    def _weight_scales(self, operator: Any) -> Iterator[int]:
        """How many scales each constant in 8 bits has."""
        for index in self.tensors.parameters(operator):
            tensor = self.tensors.tensor(index)
            if costs.dtype_name(tensor) == "int8":
                yield len(tensor.quantization.scale)
