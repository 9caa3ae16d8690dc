"""Writes the 8-bit grids of an int8 `.tflite` into a float model: QDQ, which ONNX Runtime turns into integer kernels.

    x ─ QuantizeLinear ─ DequantizeLinear ─ Conv ─ Relu ─ QuantizeLinear ─ ...
                weight ─ DequantizeLinear ─┘                uint8 activations, int8 weights with a scale per channel,
                  bias ─ DequantizeLinear ─┘                int32 biases with the scale of input times weight

Activations are uint8, the type that Qualcomm's NPU computes in; it is int8's grid moved by 128. Between a convolution
and the activation that the `.tflite` fuses with it nothing is rounded, as there. What the `.tflite` leaves in float32
stays in float32. A value that only changes its shape keeps its grid.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from slimseg.graph.layer_names import OperatorName
from slimseg.onnx_format import metadata
from slimseg.runtimes.onnxruntime.quantising import grids
from slimseg.runtimes.onnxruntime.quantising.grids import Constant, Grid

Array = np.ndarray[Any, Any]
_VIEWS = ("Reshape", "Transpose", "Slice", "DepthToSpace", "SpaceToDepth")
_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_ARITHMETIC = ("Add", "Sub", "Mul", "Div", "Max", "Min", "PRelu")
_LARGEST_BIAS = 2**31 - 1


def quantised(model: ModelProto, tflite: Path) -> ModelProto:
    """A copy of a float model with the grids of the int8 file of the same network.

    Raises:
        ModelError: the `.tflite` is damaged.
    """
    names = {name for node in model.graph.node for name in node.output} | {each.name for each in model.graph.input}
    return _Quantiser(model, grids.read(tflite, names)).run()


def fits(model: ModelProto, tflite: Path) -> bool:
    """Whether an int8 `.tflite` has a grid for every convolution of a float model, under the same names.

    Raises:
        ModelError: the `.tflite` is damaged.
    """
    names = {name for node in model.graph.node for name in node.output} | {each.name for each in model.graph.input}
    quantiser = _Quantiser(model, grids.read(tflite, names))
    return all(quantiser.is_known(node) for node in model.graph.node if node.op_type in ("Conv", "ConvTranspose"))


class _Quantiser:
    """Copies one model node by node, with conversions on the edges."""

    def __init__(self, model: ModelProto, found: grids.Grids) -> None:
        self.source, self.found = model.graph, found
        self.model = ModelProto()
        self.model.CopyFrom(model)
        self.graph = self.model.graph
        del self.graph.node[:], self.graph.initializer[:]
        self.constants = {each.name: numpy_helper.to_array(each) for each in self.source.initializer}
        self.readers: dict[str, list[NodeProto]] = {}
        for node in self.source.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self.stands_for: dict[str, str] = {}  # views: the value whose grid they have
        self.grids: dict[str, Grid] = {}  # of values that are rounded where they are made
        self.values: dict[str, str] = {}  # by value, the float that its readers read
        self.added: dict[str, str] = {}  # initialisers and conversions that exist already

    def run(self) -> ModelProto:
        (image,) = self.graph.input
        output = self.graph.output[0].name
        self.values[image.name] = image.name
        if self.found.takes_integers and self.found.input is not None:
            image.type.tensor_type.elem_type = TensorProto.UINT8
            self.grids[image.name] = self.found.input
            self.values[image.name] = self._dequantised(image.name, image.name, self.found.input)
        for node in self.source.node:
            self._copy(node, output)
        if self.values[output] != output:
            self._end(output)
        self._name_output(output)
        kept = {name for node in self.graph.node for name in node.output} - {output}
        shapes = [each for each in self.graph.value_info if each.name in kept]
        del self.graph.value_info[:]
        self.graph.value_info.extend(shapes)
        return self.model

    def is_known(self, node: NodeProto) -> bool:
        return self._weight(node, self._host(node)) is not None

    def _copy(self, node: NodeProto, output: str) -> None:
        host = self._host(node)
        grid = self._written(node, host)
        made = NodeProto()
        made.CopyFrom(node)
        del made.input[:]
        made.input.extend(self._inputs(node, host))
        result = node.output[0]
        if grid is not None and result == output:
            made.output[0] = f"{output}_real"
        self.graph.node.append(made)
        self.values[result] = made.output[0]
        if grid is not None:
            self.grids[result] = grid
            self.values[result] = self._rounded(made.output[0], result, grid)

    def _end(self, output: str) -> None:
        """Give the output its name: the last conversion, or in a file that gives integers the one before it."""
        last = self.graph.node[-1]
        if self.found.gives_integers:
            self.graph.node.remove(last)
            last = self.graph.node[-1]
            self.graph.output[0].type.tensor_type.elem_type = TensorProto.UINT8
        last.output[0] = output

    def _name_output(self, output: str) -> None:
        """Say which layer computes the value before the last conversion, which has the output's own name."""
        said, names = metadata.description(self.model), metadata.names(self.model)
        if said is not None and self.values[output] != output:
            name = names.pop(output, OperatorName(output, (output,)))
            metadata.write(self.model, said, {**names, f"{output}_real": name})

    def _host(self, node: NodeProto) -> str:
        """The value whose operator in the `.tflite` computes the node: its own, or one behind it; "" if none does."""
        name = str(node.output[0])
        while name not in self.found.written:
            readers = self.readers.get(name, [])
            if not readers:
                return ""
            name = str(readers[0].output[0])
        return name

    def _written(self, node: NodeProto, host: str) -> Grid | None:
        """The grid that a node's value is rounded to; None if it stays in float."""
        result = node.output[0]
        if result in self.found.written:
            return self.found.written[result]
        source = node.input[0]
        if node.op_type in _VIEWS and source not in self.constants:
            self.stands_for[result] = self.stands_for.get(source, source)
            return self.grids.get(source)
        return None

    def _inputs(self, node: NodeProto, host: str) -> Iterator[str]:
        integer = self.found.written.get(host) is not None
        read: list[Grid | None] = []
        for place, name in enumerate(node.input):
            if not name or name not in self.values:
                yield self._constant(node, place, host, read) if name and integer else self._stored(name)
                continue
            root = self.stands_for.get(name, name)
            wanted = self.found.read.get((root, host), self.grids.get(name))
            read.append(wanted)
            own = self.grids.get(name)
            yield self.values[name] if wanted in (None, own) else self._rounded(self.values[name], name, wanted)

    def _constant(self, node: NodeProto, place: int, host: str, read: Sequence[Grid | None]) -> str:
        """A constant of a node that computes in 8 bits, in the grid that it has in the `.tflite`."""
        name = node.input[place]
        values = self.constants[name]
        weight = self._weight(node, host)
        if values.dtype != np.float32 or not read or read[0] is None:
            return self._stored(name)
        if node.op_type in _WEIGHTED and weight is not None:
            scales, axis = self._scales(node, weight, self.constants[node.input[1]].shape)
            if place == 1:
                return self._in_int8(name, values, scales, axis)
            return self._in_int32(name, values, np.float32(read[0].scale) * scales)
        if node.op_type in _ARITHMETIC and weight is not None and weight.scales.size == 1:
            return self._in_uint8(name, values, Grid(float(weight.scales[0]), weight.zero_point + 128))
        if node.op_type == "Concat" and (grid := self.found.written.get(host)) is not None:
            return self._in_uint8(name, values, grid)
        return self._stored(name)

    def _weight(self, node: NodeProto, host: str) -> Constant | None:
        """The grid of an operator's constant; a transposed convolution may be cropped by an operator of its own."""
        for name in (host, f"{node.output[0]}_uncropped"):
            if self.found.constants.get(name):
                return self.found.constants[name][0]
        return None

    def _scales(self, node: NodeProto, weight: Constant, shape: Sequence[int]) -> tuple[Array, int]:
        """The scales of a weight along one of its axes; a single one where they do not lie along an axis."""
        axis = {"Conv": 0, "ConvTranspose": 1, "Gemm": 0, "MatMul": len(shape) - 1}[node.op_type]
        scales = weight.scales
        return (scales, axis) if scales.size in (1, shape[axis]) else (scales.max(keepdims=True), axis)

    def _in_int8(self, name: str, values: Array, scales: Array, axis: int) -> str:
        along = scales.reshape([-1 if dim == axis else 1 for dim in range(values.ndim)])
        stored = np.rint(values / along).clip(-127, 127).astype(np.int8)
        return self._widened(name, stored, scales, axis)

    def _in_int32(self, name: str, values: Array, scales: Array) -> str:
        stored = np.rint(values.astype(np.float64) / scales).clip(-_LARGEST_BIAS, _LARGEST_BIAS).astype(np.int32)
        return self._widened(name, stored, scales, 0)

    def _in_uint8(self, name: str, values: Array, grid: Grid) -> str:
        stored = (np.rint(values / np.float32(grid.scale)) + grid.zero_point).clip(0, 255).astype(np.uint8)
        self._add(f"{name}_integers", stored)
        return self._dequantised(f"{name}_integers", name, grid)

    def _widened(self, name: str, stored: Array, scales: Array, axis: int) -> str:
        """A constant in integers, and the conversion to the float that the operator reads."""
        if name in self.added:
            return self.added[name]
        scales = scales.astype(np.float32)
        zero = np.zeros(scales.size, stored.dtype)
        settings: dict[str, Any] = {"axis": axis} if scales.size > 1 else {}
        inputs = [
            self._add(f"{name}_integers", stored),
            self._add(f"{name}_scale", scales if scales.size > 1 else scales.reshape(())),
            self._add(f"{name}_zero", zero if scales.size > 1 else zero.reshape(())),
        ]
        self.graph.node.append(helper.make_node("DequantizeLinear", inputs, [name], name, **settings))
        self.added[name] = name
        return name

    def _rounded(self, value: str, name: str, grid: Grid) -> str:
        """The value rounded to a grid, as a float."""
        integers = self._converted("QuantizeLinear", value, f"{name}_quantised", grid)
        return self._dequantised(integers, name, grid)

    def _dequantised(self, integers: str, name: str, grid: Grid) -> str:
        return self._converted("DequantizeLinear", integers, f"{name}_rounded", grid)

    def _converted(self, op: str, value: str, name: str, grid: Grid) -> str:
        key = f"{op} {value} {grid}"
        if key not in self.added:
            scale = self._add(f"{name}_scale", np.asarray(grid.scale, np.float32))
            zero = self._add(f"{name}_zero", np.asarray(grid.zero_point, np.uint8))
            result = self._unused(name)
            self.graph.node.append(helper.make_node(op, [value, scale, zero], [result], result))
            self.added[key] = result
        return self.added[key]

    def _stored(self, name: str) -> str:
        return self._add(name, self.constants[name]) if name in self.constants else name

    def _add(self, name: str, values: Array) -> str:
        """Store a constant, once per name and value."""
        wanted, number = name, 1
        while f"constant {wanted}" in self.added:
            if np.array_equal(self.constants[wanted], values) and self.constants[wanted].dtype == values.dtype:
                return wanted
            number += 1
            wanted = f"{name}_{number}"
        self.added[f"constant {wanted}"] = wanted
        self.constants[wanted] = values
        self.graph.initializer.append(numpy_helper.from_array(np.asarray(values), wanted))
        return wanted

    def _unused(self, name: str) -> str:
        wanted, number = name, 1
        while f"value {wanted}" in self.added:
            number += 1
            wanted = f"{name}_{number}"
        self.added[f"value {wanted}"] = wanted
        return wanted
