"""Adds operators, tensors and constants to a float `ModelT`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from slimseg.tflite import costs, operator_codes

Op, Fused, Options = schema.BuiltinOperator, schema.ActivationFunctionType, schema.BuiltinOptions
Array = np.ndarray[Any, Any]
Ranges = Mapping[str, tuple[float, float]]


class Editor:
    """One file that is rewritten; collects the ranges of new tensors in `found`."""

    def __init__(self, model: Any, ranges: Ranges, leave: Collection[str] = ()) -> None:
        self.model = model
        self.leave = leave  # names of tensors whose operators are not rewritten
        self.graph = model.subgraphs[0]
        self.ranges = ranges
        self.found: dict[str, tuple[float, float]] = {}
        self.parts: dict[str, str] = {}  # by name of an added operator's result, the name of the layer's last result
        self.constants: dict[tuple[Any, ...], int] = {}

    def code(self, operator: Any) -> int:
        return costs.op_code(self.model.operatorCodes[operator.opcodeIndex])

    def name(self, index: int) -> str:
        return str(self.graph.tensors[index].name.decode(errors="replace"))

    def shape(self, index: int) -> tuple[int, ...]:
        return tuple(int(length) for length in self.graph.tensors[index].shape)

    def range(self, index: int) -> tuple[float, float]:
        """The range of a tensor's values; (0, 0) if it is unknown."""
        return self.ranges.get(self.name(index), (0.0, 0.0))

    def is_float(self, operator: Any) -> bool:
        return bool(self.graph.tensors[int(operator.inputs[0])].type == schema.TensorType.FLOAT32)

    def values(self, index: int) -> Array | None:
        """A float32 constant; None for any other tensor."""
        tensor = self.graph.tensors[index]
        data = self.model.buffers[tensor.buffer].data
        if tensor.type != schema.TensorType.FLOAT32 or data is None or not len(data):
            return None
        return np.frombuffer(bytes(data), np.float32).reshape(self.shape(index))

    def integers(self, index: int) -> list[int] | None:
        """The values of an int32 constant; None for any other tensor."""
        tensor = self.graph.tensors[index]
        data = self.model.buffers[tensor.buffer].data
        if tensor.type != schema.TensorType.INT32 or data is None or not len(data):
            return None
        return [int(each) for each in np.frombuffer(bytes(data), np.int32)]

    def operator(
        self, code: int, inputs: Sequence[int], target: int, options: Any = None, kind: int = 0, fused: int = Fused.NONE
    ) -> Any:
        operator = schema.OperatorT()
        operator.opcodeIndex = operator_codes.index(self.model, code)
        operator.inputs = np.asarray(inputs, np.int32)
        operator.outputs = np.asarray([target], np.int32)
        operator.builtinOptions, operator.builtinOptionsType = options, kind
        if hasattr(options, "fusedActivationFunction"):
            options.fusedActivationFunction = fused
        return operator

    def add(self, inputs: Sequence[int], target: int, fused: int = Fused.NONE) -> Any:
        return self.operator(Op.ADD, inputs, target, schema.AddOptionsT(), Options.AddOptions, fused)

    def subtract(self, inputs: Sequence[int], target: int) -> Any:
        return self.operator(Op.SUB, inputs, target, schema.SubOptionsT(), Options.SubOptions)

    def multiply(self, inputs: Sequence[int], target: int, fused: int = Fused.NONE) -> Any:
        return self.operator(Op.MUL, inputs, target, schema.MulOptionsT(), Options.MulOptions, fused)

    def activation(
        self,
        part_of: int,
        suffix: str,
        ends: tuple[float, float] | None,
        shape: Sequence[int] | None = None,
    ) -> int:
        """Add a tensor that is computed on the way to the tensor `part_of`, and return its index.

        Args:
            ends: its range; None if that follows from its source's.
            shape: that of `part_of` by default.
        """
        whole = self.graph.tensors[part_of]
        name = whole.name + f"_{suffix}".encode()
        if ends is not None:
            self.found[name.decode(errors="replace")] = ends
        self.parts[name.decode(errors="replace")] = self.name(part_of)
        return self._tensor(name, whole.shape if shape is None else np.asarray(shape, np.int32), 0)

    def constant(self, values: Any, name: str = "") -> int:
        """The index of a float32 or int32 constant; equal ones are stored once."""
        array = np.asarray(values)
        array = np.atleast_1d(array.astype(np.int32 if np.issubdtype(array.dtype, np.integer) else np.float32))
        key = array.shape, array.dtype.str, array.tobytes()
        if key not in self.constants:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(array.tobytes(), np.uint8)
            self.model.buffers.append(buffer)
            shape = np.asarray(array.shape, np.int32)
            name = f"spelling_{name}" if name else f"spelling_{'_'.join(f'{each:g}' for each in array.flat)}"
            index = self._tensor(name.encode(), shape, len(self.model.buffers) - 1)
            if array.dtype == np.int32:
                self.graph.tensors[index].type = schema.TensorType.INT32
            self.constants[key] = index
        return self.constants[key]

    def _tensor(self, name: bytes, shape: Any, buffer: int) -> int:
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.buffer = name, shape, buffer
        tensor.type = schema.TensorType.FLOAT32
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1
