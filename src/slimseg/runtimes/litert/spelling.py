"""What XNNPACK has no 8-bit kernel for, in a spelling for which it has one.

    Given   y = ReLU(x) on its own, because something else reads x, too (residual networks with activations first)
    Result  y = ReLU(1 · x): a multiplication by one with the activation fused

The same numbers, bit for bit: one in 8 bits is 127/127. Alone, the activation falls off XNNPACK in int8 and takes the
delegate's parts before and behind it asunder; prisma-net's int8 file is three times faster for it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from slimseg.runtimes.litert import costs

Op, Fused = schema.BuiltinOperator, schema.ActivationFunctionType
_FUSABLE = {Op.RELU: Fused.RELU, Op.RELU6: Fused.RELU6, Op.RELU_N1_TO_1: Fused.RELU_N1_TO_1}


def for_int8(model: Any) -> None:
    """Spell the activations of a float `ModelT` that stand alone so that its int8 form stays on XNNPACK; in place."""
    graph = model.subgraphs[0]
    one: int | None = None
    for operator in graph.operators or []:
        fused = _FUSABLE.get(costs.op_code(model.operatorCodes[operator.opcodeIndex]))
        if fused is None or graph.tensors[int(operator.inputs[0])].type != schema.TensorType.FLOAT32:
            continue
        one = _add_one(model, graph) if one is None else one
        operator.opcodeIndex = _multiplication(model)
        operator.inputs = np.asarray([int(operator.inputs[0]), one], np.int32)
        operator.builtinOptionsType = schema.BuiltinOptions.MulOptions
        operator.builtinOptions = schema.MulOptionsT()
        operator.builtinOptions.fusedActivationFunction = fused


def _add_one(model: Any, graph: Any) -> int:
    """The index of a constant 1.0."""
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(np.ones(1, np.float32).tobytes(), np.uint8)
    model.buffers.append(buffer)
    tensor = schema.TensorT()
    tensor.name = b"one"
    tensor.shape = np.asarray([1], np.int32)
    tensor.type = schema.TensorType.FLOAT32
    tensor.buffer = len(model.buffers) - 1
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _multiplication(model: Any) -> int:
    """The index of the operator code MUL, added where the file has none."""
    for index, entry in enumerate(model.operatorCodes):
        if costs.op_code(entry) == Op.MUL:
            return index
    entry = schema.OperatorCodeT()
    entry.builtinCode = entry.deprecatedBuiltinCode = Op.MUL
    entry.version = 1
    model.operatorCodes.append(entry)
    return len(model.operatorCodes) - 1
