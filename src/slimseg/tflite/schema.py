"""Builds the flatbuffer of a `.tflite`: tensors, buffers and operators of one subgraph, in the official schema."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from ai_edge_litert import schema_py_generated as tflite

from slimseg.graph.description import Description
from slimseg.graph.layer_names import OperatorName, to_text
from slimseg.tflite import compact, metadata, operator_names

# How floating-point constants are stored: in 32 bits; rounded to 16 bits; or in 16 bits if exact, else in 32 bits.
Storage = Literal["float32", "float16", "float16 where exact"]
LARGEST_HALF = 65504.0
DEQUANTIZE_OF_HALVES = 3  # the operator's version that accepts float16
_FEWEST_HALVES = 128  # values; for fewer, the DEQUANTIZE operator takes more bytes than float16 saves
_TYPES = {
    np.dtype(np.float16): tflite.TensorType.FLOAT16,
    np.dtype(np.float32): tflite.TensorType.FLOAT32,
    np.dtype(np.int8): tflite.TensorType.INT8,
    np.dtype(np.int32): tflite.TensorType.INT32,
    np.dtype(np.int64): tflite.TensorType.INT64,
}


def half(value: np.ndarray[Any, Any], rounding: bool = False) -> np.ndarray[Any, Any] | None:
    """float32 values as float16, or None if they must stay float32.

    They stay if float16 saves nothing, if a value is too large, or if one would be rounded and `rounding` is False.
    """
    if value.dtype != np.float32 or value.size < _FEWEST_HALVES or not np.abs(value).max() <= LARGEST_HALF:
        return None
    narrow = value.astype(np.float16)
    return narrow if rounding or np.array_equal(narrow, value) else None


class ModelBuilder:
    """Collects tensors and operators, then serialises them. Indices of tensors are those in the file."""

    def __init__(self, storage: Storage = "float32") -> None:
        self.storage = storage
        self.subgraph = tflite.SubGraphT()
        self.subgraph.name = b"main"
        self.subgraph.tensors, self.subgraph.operators = [], []
        self.model = tflite.ModelT()
        self.model.version = 3
        self.model.subgraphs = [self.subgraph]
        self.model.buffers = [tflite.BufferT()]  # buffer 0 is the empty one, by convention
        self.model.operatorCodes = []
        self._codes: dict[tuple[int, int], int] = {}  # by code and version
        self._dtypes: list[np.dtype[Any]] = []

    def tensor(self, name: str, shape: Sequence[int], dtype: Any = np.float32) -> int:
        """Add an activation of `shape` (NHWC), and return its index."""
        return self._tensor(name, shape, np.dtype(dtype), 0)

    def dtype(self, index: int) -> np.dtype[Any]:
        """The numeric type of a tensor."""
        return self._dtypes[index]

    def shape(self, index: int) -> tuple[int, ...]:
        """The shape of a tensor."""
        return tuple(map(int, self.subgraph.tensors[index].shape))

    def constant(self, name: str, value: np.ndarray[Any, Any]) -> int:
        """Add a tensor whose data is stored in the file, and return its index.

        If `storage` asks for 16 bits, the data is float16 and a DEQUANTIZE converts it to float32; runtimes do that
        once, before the first run.
        """
        narrow = None if self.storage == "float32" else half(value, rounding=self.storage == "float16")
        if narrow is None:
            return self._stored(name, value)
        stored, index = self._stored(f"{name}_float16", narrow), self.tensor(name, value.shape)
        self.operator(tflite.BuiltinOperator.DEQUANTIZE, [stored], index, version=DEQUANTIZE_OF_HALVES)
        return index

    def _stored(self, name: str, value: np.ndarray[Any, Any]) -> int:
        buffer = tflite.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(value).tobytes(), np.uint8)
        self.model.buffers.append(buffer)
        return self._tensor(name, value.shape, value.dtype, len(self.model.buffers) - 1)

    def _tensor(self, name: str, shape: Sequence[int], dtype: np.dtype[Any], buffer: int) -> int:
        tensor = tflite.TensorT()
        tensor.name = name.encode()
        tensor.shape = np.asarray(shape, np.int32)
        tensor.type = _TYPES[dtype]
        tensor.buffer = buffer
        self.subgraph.tensors.append(tensor)
        self._dtypes.append(dtype)
        return len(self.subgraph.tensors) - 1

    def operator(
        self,
        code: int,
        inputs: Sequence[int],
        output: int,
        options: Any = None,
        options_type: int = 0,
        version: int = 1,
    ) -> None:
        operator = tflite.OperatorT()
        operator.opcodeIndex = self._code(code, version)
        operator.inputs = np.asarray(inputs, np.int32)
        operator.outputs = np.asarray([output], np.int32)
        operator.builtinOptions = options
        operator.builtinOptionsType = options_type
        self.subgraph.operators.append(operator)

    def _code(self, code: int, version: int) -> int:
        if (code, version) not in self._codes:
            entry = tflite.OperatorCodeT()
            entry.builtinCode = code
            entry.deprecatedBuiltinCode = min(code, 127)
            entry.version = version
            self.model.operatorCodes.append(entry)
            self._codes[code, version] = len(self.model.operatorCodes) - 1
        return self._codes[code, version]

    def rename(self, index: int, name: str) -> None:
        """Rename a tensor."""
        self.subgraph.tensors[index].name = name.encode()

    def results(self, since: int) -> list[str]:
        """Names of the tensors computed by the operators from number `since` on, without converted constants."""
        code = self._codes.get((tflite.BuiltinOperator.DEQUANTIZE, DEQUANTIZE_OF_HALVES))
        operators = (each for each in self.subgraph.operators[since:] if each.opcodeIndex != code)
        return [self.subgraph.tensors[int(each.outputs[0])].name.decode() for each in operators]

    def finish(
        self,
        inputs: Sequence[int],
        outputs: Sequence[int],
        description: Description,
        names: Mapping[str, OperatorName] | None = None,
    ) -> bytes:
        """The file's bytes, with a serving signature, and with the description and the operators' names as metadata.

        Args:
            names: by result, names of the operators whose name differs from that of their result.
        """
        self.subgraph.inputs = np.asarray(inputs, np.int32)
        self.subgraph.outputs = np.asarray(outputs, np.int32)
        self.model.signatureDefs = [self._signature(inputs, outputs)]
        self.model.description = b"slimseg"
        metadata.write(self.model, metadata.DESCRIPTION, description.to_json().encode())
        if text := to_text(names or {}):
            metadata.write(self.model, operator_names.METADATA_NAME, text)
        return compact.pack(self.model, b"TFL3")

    def _signature(self, inputs: Sequence[int], outputs: Sequence[int]) -> Any:
        signature = tflite.SignatureDefT()
        signature.signatureKey = b"serving_default"
        signature.subgraphIndex = 0
        signature.inputs = [self._named(b"image", inputs[0])]
        signature.outputs = [self._named(b"output", outputs[0])]
        return signature

    @staticmethod
    def _named(name: bytes, index: int) -> Any:
        entry = tflite.TensorMapT()
        entry.name = name
        entry.tensorIndex = index
        return entry
