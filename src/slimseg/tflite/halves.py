"""Converts float16 constants of a `.tflite` to float32, which the quantiser and slimseg's own edits need, and back.

widened    w (float16, stored) -> DEQUANTIZE -> w' (float32), or w read by an operator directly,
           becomes w' (float32, stored)
narrowed   the reverse, for constants that float16 holds exactly

The runtime computes with the same numbers in both.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from slimseg.errors import ModelError
from slimseg.tflite import costs, file, operator_codes
from slimseg.tflite.schema import DEQUANTIZE_OF_HALVES, half


def widened(data: bytes, path: Path) -> bytes:
    """The bytes of the same file with every float16 constant of its main graph stored as float32.

    Raises:
        ModelError: the file is not a `.tflite`, or damaged.
    """
    model = file.parse(data, path)
    try:
        _widen(model)
    except (IndexError, ValueError, TypeError, AttributeError) as error:
        raise ModelError(f"{path} is a damaged or truncated .tflite model: copy or export it again") from error
    _drop_unread_data(model)
    return file.pack(model)


def narrowed(data: bytes, path: Path) -> bytes:
    """The bytes of the same file with those float32 weights stored as float16 that float16 holds exactly.

    Raises:
        ModelError: the file is not a `.tflite`, or damaged.
    """
    model = file.parse(data, path)
    tensors, graph = costs.Tensors(model), model.subgraphs[0]
    widening = [
        _narrow(model, index)
        for index in sorted({index for operator in graph.operators for index in tensors.parameters(operator)})
        if costs.dtype_name(graph.tensors[index]) == "float32" and half(_values(model, index)) is not None
    ]
    graph.operators = [*widening, *graph.operators]
    _drop_unread_data(model)
    return file.pack(model)


def _drop_unread_data(model: Any) -> None:
    """Remove the bytes of buffers that no tensor and no metadata refers to."""
    read = {int(tensor.buffer) for graph in model.subgraphs for tensor in graph.tensors or []}
    read |= {int(entry.buffer) for entry in model.metadata or []}
    for number, buffer in enumerate(model.buffers):
        if number not in read:
            buffer.data = None


def _values(model: Any, index: int) -> np.ndarray[Any, Any]:
    data = model.buffers[model.subgraphs[0].tensors[index].buffer].data
    return np.frombuffer(b"" if data is None else bytes(data), np.float32)


def _narrow(model: Any, index: int) -> Any:
    """Store a constant in 16 bits under another name, and return the DEQUANTIZE that converts it to 32 bits."""
    graph = model.subgraphs[0]
    wide, narrow, buffer = graph.tensors[index], schema.TensorT(), schema.BufferT()
    stored = half(_values(model, index))
    assert stored is not None
    buffer.data = np.frombuffer(stored.tobytes(), np.uint8)
    model.buffers.append(buffer)
    narrow.name, narrow.shape, narrow.type = wide.name + b"_float16", wide.shape, schema.TensorType.FLOAT16
    narrow.buffer, wide.buffer = len(model.buffers) - 1, 0
    graph.tensors.append(narrow)
    operator = schema.OperatorT()
    operator.opcodeIndex = operator_codes.index(model, schema.BuiltinOperator.DEQUANTIZE)
    code = model.operatorCodes[operator.opcodeIndex]
    code.version = max(code.version, DEQUANTIZE_OF_HALVES)
    operator.inputs, operator.outputs = np.array([len(graph.tensors) - 1], np.int32), np.array([index], np.int32)
    return operator


def _widen(model: Any) -> None:
    tensors, graph = costs.Tensors(model), model.subgraphs[0]
    halves = {index for index in range(len(graph.tensors)) if _is_stored_half(model, graph.tensors[index])}
    kept = []
    for operator in graph.operators or []:
        if tensors.op_name(operator) == "DEQUANTIZE" and int(operator.inputs[0]) in halves:
            source, result = (graph.tensors[int(each[0])] for each in (operator.inputs, operator.outputs))
            result.buffer = _widened(model, source.buffer)
        else:
            kept.append(operator)
    graph.operators = kept
    read = {int(index) for operator in kept for index in tensors.inputs(operator)}
    for index in halves & read:
        tensor = graph.tensors[index]
        tensor.type, tensor.buffer = schema.TensorType.FLOAT32, _widened(model, tensor.buffer)
    for index in halves - read:
        graph.tensors[index].buffer = 0  # no operator reads it


def _is_stored_half(model: Any, tensor: Any) -> bool:
    data = model.buffers[tensor.buffer].data
    return costs.dtype_name(tensor) == "float16" and data is not None and len(data) > 0


def _widened(model: Any, number: int) -> int:
    """Add a buffer with the values of buffer `number` in 32 bits, and return its number."""
    buffer = schema.BufferT()
    wide = np.frombuffer(bytes(model.buffers[number].data), np.float16).astype(np.float32)
    buffer.data = np.frombuffer(wide.tobytes(), np.uint8)
    model.buffers.append(buffer)
    return len(model.buffers) - 1
