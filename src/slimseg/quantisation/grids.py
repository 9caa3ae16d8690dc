"""Which 8-bit grid each value of an int8 file is rounded to: found by probing the quantiser, not by copying its rules.

    Given   float file, each tensor with a made-up, unique range                    (probe)
    Result  in its int8 form every scale shows which range it was computed from: the tensor's own (most), that of the
            concatenation that reads it, of a resize's or pool's source, or a constant of the operator (softmax)

A tensor that two operators read may be rounded again on the way to one of them (a skip connection into a concatenation,
an input in float32): this grid belongs to the edge between the two. A tensor that stays in float32 has no grid.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from slimseg.disk import scratch
from slimseg.runtimes import registry
from slimseg.tflite import costs, file

STEPS = 255  # number of steps of an 8-bit grid
_CONVERSIONS = ("QUANTIZE", "DEQUANTIZE")


@dataclass(frozen=True)
class Grid:
    """An 8-bit grid: that of the range of the tensor `leader`, or one with a fixed scale and zero point."""

    leader: str | None
    scale: float = 0.0
    zero_point: int = 0


@dataclass(frozen=True)
class Grids:
    """The grids of one file, by the names of its tensors."""

    written: Mapping[str, Grid]  # as the tensor's operator writes it; tensors that stay in float32 are absent
    # By (source, reader): the grid of `source` as the operator that writes `reader` reads it, if it differs.
    read: Mapping[tuple[str, str], Grid]
    operators: frozenset[str]  # the tensors that operators write
    per_channel: Mapping[str, bool]  # by the operator's output: whether its int8 constants have a scale per channel

    @property
    def leaders(self) -> frozenset[str]:
        """Tensors whose ranges determine a grid."""
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
        nothing = np.zeros(source.shape, np.float32)
        registry.of(float_path).quantiser().quantise_int8(float_path, path, [nothing], ranges=ranges)
        return _Reader(file.parse(path.read_bytes(), path), names).run()


def _made_up(number: int) -> tuple[float, float]:
    """A range for each number, with a unique width and so a unique scale; all widths are similar."""
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
        # For each tensor of a conversion that the quantiser inserted, the name of the tensor before it.
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
        """The grid of a tensor; None for one in float32, or in integers without a scale."""
        tensor = self.tensors.tensor(index)
        if costs.dtype_name(tensor) != "int8" or tensor.quantization is None or tensor.quantization.scale is None:
            return None
        scale, zero_point = float(tensor.quantization.scale[0]), int(tensor.quantization.zeroPoint[0])
        number = round((scale * STEPS - _width(0)) / (_width(1) - _width(0)))
        if 0 <= number < len(self.names) and abs(scale * STEPS - _width(number)) < 1e-5:
            return Grid(self.names[number])
        return Grid(None, scale, zero_point)

    def _weight_scales(self, operator: Any) -> Iterator[int]:
        """The number of scales of each 8-bit constant of an operator."""
        for index in self.tensors.parameters(operator):
            tensor = self.tensors.tensor(index)
            if costs.dtype_name(tensor) == "int8":
                yield len(tensor.quantization.scale)
