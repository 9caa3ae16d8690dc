"""Costs of a TFLite operator: multiply-accumulates, stored parameters and bytes moved, from shapes alone.

Does for any `.tflite`, whoever wrote it, what `slimseg.graph.costs` does for a graph.
"""

from __future__ import annotations

import functools
import math
from typing import Any

from ai_edge_litert import schema_py_generated as schema

_OPS: dict[int, str] = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
_DTYPES: dict[int, str] = {
    value: name.lower() for name, value in vars(schema.TensorType).items() if isinstance(value, int)
}
_BITS = {"float64": 64, "int64": 64, "uint64": 64, "complex64": 64, "float32": 32, "int32": 32, "uint32": 32}
_BITS |= {"float16": 16, "bfloat16": 16, "int16": 16, "uint16": 16, "int4": 4, "int2": 2}
_MOST_DEQUANTIZES = 8  # longest chain of DEQUANTIZE operators after a constant
# Below, `_WEIGHTED` has the positions of the weights and of the bias among an operator's inputs.
_WORTH_TELLING = 0.01  # a type with a smaller share of all weights, 0-1, is not reported
_WEIGHTED = {"CONV_2D": (1, 2), "DEPTHWISE_CONV_2D": (1, 2), "FULLY_CONNECTED": (1, 2), "TRANSPOSE_CONV": (1, 3)}


def dtype_name(tensor: Any) -> str:
    """numpy's name of a tensor's type, e.g. "float32"."""
    return _DTYPES.get(tensor.type, "unknown")


def op_code(entry: Any) -> int:
    """An operator's code; files older than schema 3a store it only in the deprecated byte."""
    return max(int(entry.builtinCode), int(entry.deprecatedBuiltinCode))


class Tensors:
    """The tensors of a `ModelT`'s main graph, and the costs of its operators."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._graph = model.subgraphs[0]
        self._made_by = {int(i): op for op in self._graph.operators or [] for i in op.outputs}

    def op_name(self, operator: Any) -> str:
        entry = self._model.operatorCodes[operator.opcodeIndex]
        if entry.customCode:
            return str(entry.customCode.decode(errors="replace"))
        return _OPS.get(op_code(entry), f"BUILTIN_{op_code(entry)}")

    def tensor(self, index: int) -> Any:
        return self._graph.tensors[index]

    def shape(self, index: int) -> tuple[int, ...]:
        shape = self.tensor(index).shape
        return () if shape is None else tuple(int(n) for n in shape)

    def size(self, index: int) -> int:
        return math.prod(self.shape(index))

    def bytes(self, index: int) -> int:
        return self.size(index) * _BITS.get(dtype_name(self.tensor(index)), 8) // 8

    @functools.cache  # noqa: B019  one short-lived object per file
    def is_constant(self, index: int) -> bool:
        """Whether a tensor is stored in the file, directly or as input of a DEQUANTIZE (float16 weights)."""
        for _ in range(_MOST_DEQUANTIZES):
            data = self._model.buffers[self.tensor(index).buffer].data
            if data is not None and len(data):
                return True
            maker = self._made_by.get(index)
            if maker is None or self.op_name(maker) != "DEQUANTIZE":
                return False
            index = int(maker.inputs[0])
        return False  # the operators form a cycle

    def inputs(self, operator: Any) -> list[int]:
        return [int(i) for i in operator.inputs if i >= 0] if operator.inputs is not None else []

    def activations(self, operator: Any) -> list[int]:
        return [i for i in self.inputs(operator) if not self.is_constant(i)]

    def parameters(self, operator: Any) -> list[int]:
        """Learnt constants, without shapes, paddings and axes, which are integers without a scale."""
        name = self.op_name(operator)
        if name == "DEQUANTIZE":
            return []  # its constant counts as parameter of the operator that reads the result
        positions = [int(i) for i in operator.inputs] if operator.inputs is not None else []
        bias = _WEIGHTED.get(name, (1, -1))[1]
        return [
            index
            for position, index in enumerate(positions)
            if index >= 0 and self.is_constant(index) and (position == bias or self._is_learnt(index))
        ]

    def _is_learnt(self, index: int) -> bool:
        return dtype_name(self.tensor(index)) not in ("int32", "int64", "bool", "string")

    def params(self, operator: Any) -> int:
        return sum(self.size(index) for index in self.parameters(operator))

    def total_params(self) -> int:
        return sum(self.size(i) for i in {i for op in self._graph.operators or [] for i in self.parameters(op)})

    def has_integer_weights(self) -> bool:
        """Whether weights of convolutions or matrix products are stored as integers."""
        return any(
            dtype_name(self.tensor(index)) in ("int8", "uint8", "int4")
            for op in self._graph.operators or []
            if self.op_name(op) in _WEIGHTED
            for index in self.parameters(op)
        )

    def weights(self) -> str:
        """Stored type of the weights of convolutions and matrix products: "float32", or "float16 and int8".

        Several types are in order of the number of weights, largest first.
        """
        values: dict[str, int] = {}
        for op in self._graph.operators or []:
            position, _ = _WEIGHTED.get(self.op_name(op), (-1, -1))
            if 0 <= position < len(op.inputs) and self.is_constant(index := int(op.inputs[position])):
                stored = dtype_name(self.tensor(self._stored(index)))
                values[stored] = values.get(stored, 0) + self.size(index)
        told = [each for each, count in values.items() if count >= _WORTH_TELLING * sum(values.values())]
        return " and ".join(sorted(told, key=lambda each: -values[each])) or "float32"

    def _stored(self, index: int) -> int:
        """The tensor that stores the data of a constant: the constant itself, or the input of its DEQUANTIZE."""
        data = self._model.buffers[self.tensor(index).buffer].data
        return index if data is not None and len(data) else int(self._made_by[index].inputs[0])

    def memory_bytes(self, operator: Any) -> int:
        moved = [*self.activations(operator), *self.parameters(operator), *(int(i) for i in operator.outputs)]
        return sum(self.bytes(index) for index in moved)

    def macs(self, operator: Any) -> int:
        name = self.op_name(operator)
        if name == "BATCH_MATMUL":
            return self.size(int(operator.outputs[0])) * self.shape(int(operator.inputs[0]))[-1]
        if name not in _WEIGHTED:
            return 0
        weights = self.shape(int(operator.inputs[_WEIGHTED[name][0]]))
        if name == "TRANSPOSE_CONV":  # (out, h, w, in): every input pixel is multiplied with the whole kernel
            pixels = self.size(int(operator.inputs[2])) // max(weights[-1], 1)
        elif name == "DEPTHWISE_CONV_2D":  # (1, h, w, out)
            pixels = self.size(int(operator.outputs[0])) // max(weights[-1], 1)
        else:  # (out, ..., in per group)
            pixels = self.size(int(operator.outputs[0])) // max(weights[0], 1)
        return pixels * math.prod(weights)
