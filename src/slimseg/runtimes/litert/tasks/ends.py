"""Adds operators before the input or after the output of a file; its input and output keep their names.

Given   image ─ network ─ scores
Result  image ─ operator ─ image_inner ─ network ─ scores_inner ─ operator ─ scores
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as tflite

from slimseg.errors import Unsupported
from slimseg.tflite import operator_codes, operator_names


class Ends:
    """The input and the output of a `ModelT`, which is changed in place.

    Raises:
        Unsupported: the model does not have exactly one graph, one input and one output.
    """

    def __init__(self, model: Any, name: str = "the model") -> None:
        self.model = model
        self.graph = model.subgraphs[0]
        inputs, outputs = (0 if end is None else len(end) for end in (self.graph.inputs, self.graph.outputs))
        if len(model.subgraphs) != 1 or inputs != 1 or outputs != 1:
            raise Unsupported(
                f"{name} has {len(model.subgraphs)} graphs, {inputs} inputs and {outputs} outputs, and MediaPipe's "
                "ImageSegmenter needs one of each: export a network with one image and one output"
            )

    @property
    def input(self) -> Any:
        return self.graph.tensors[int(self.graph.inputs[0])]

    @property
    def output(self) -> Any:
        return self.graph.tensors[int(self.graph.outputs[0])]

    def before(self, code: int, options: Any, **changes: Any) -> None:
        """Add an operator that computes the input from a new one; its tensor has the fields in `changes` replaced."""
        old = int(self.graph.inputs[0])
        new = self._outer(old, changes)
        self.graph.operators.insert(0, self._operator(code, (new,), old, options))
        self._replace("inputs", old, new)

    def behind(self, code: int, options: Any, constants: tuple[int, ...] = (), **changes: Any) -> None:
        """Add an operator that computes a new output from the old; its tensor has the fields in `changes` replaced."""
        old = int(self.graph.outputs[0])
        new = self._outer(old, changes)
        operator_names.move(self.model, self.graph.tensors[new].name, self.graph.tensors[old].name)
        self.graph.operators.append(self._operator(code, (old, *constants), new, options))
        self._replace("outputs", old, new)

    def constant(self, name: str, value: np.ndarray[Any, Any]) -> int:
        """Store a constant, float32 or int32, in the file, and return the index of its tensor."""
        buffer = tflite.BufferT()
        buffer.data = np.frombuffer(value.tobytes(), np.uint8)
        self.model.buffers.append(buffer)
        tensor = tflite.TensorT()
        tensor.name, tensor.shape = name.encode(), np.asarray(value.shape, np.int32)
        tensor.type = tflite.TensorType.FLOAT32 if value.dtype == np.float32 else tflite.TensorType.INT32
        tensor.buffer = len(self.model.buffers) - 1
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def _outer(self, old: int, changes: dict[str, Any]) -> int:
        """Add a copy of a tensor, which keeps the name while the old tensor is renamed; return its index."""
        inner = self.graph.tensors[old]
        outer = copy.deepcopy(inner)
        outer.buffer = 0
        for name, value in changes.items():
            setattr(outer, name, value)
        taken = {tensor.name for tensor in self.graph.tensors}
        while inner.name in taken:
            inner.name = inner.name + b"_inner"
        self.graph.tensors.append(outer)
        return len(self.graph.tensors) - 1

    def _operator(self, code: int, inputs: tuple[int, ...], target: int, options: Any) -> Any:
        operator = tflite.OperatorT()
        operator.opcodeIndex = operator_codes.index(self.model, code)
        operator.inputs, operator.outputs = np.asarray(inputs, np.int32), np.asarray([target], np.int32)
        kind = type(options).__name__.removesuffix("T")
        operator.builtinOptions, operator.builtinOptionsType = options, getattr(tflite.BuiltinOptions, kind)
        return operator

    def _replace(self, end: str, old: int, new: int) -> None:
        setattr(self.graph, end, np.asarray([new], np.int32))
        for signature in self.model.signatureDefs or []:
            for entry in getattr(signature, end) or []:
                entry.tensorIndex = new if entry.tensorIndex == old else entry.tensorIndex
