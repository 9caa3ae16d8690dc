"""Rescales addends of an int8 sum whose scale is too small for XNNPACK.

    Given   y = a + b, int8          XNNPACK adds only if (scale of b) / (scale of y) is at least 2⁻¹⁰; otherwise
                                     TFLite's built-in kernel runs the sum, which splits the delegated part in two
    Result  y = a + b',              b' = b with a scale of 2⁻⁹ of y's: by QUANTIZE, which XNNPACK runs, or by storing
                                     a constant anew; the error is at most 2⁻¹⁰ of a step of y, so that y changes by at
                                     most its last bit

Such addends come from skip connections into a decoder with much larger values: three of them took 14% of prisma-net's
time in int8.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from slimseg.tflite import costs, operator_codes, operator_names

Op, Options = schema.BuiltinOperator, schema.BuiltinOptions
_WEAKEST_ADDEND = 2.0**-10  # XNNPACK's limit for the scale of an addend divided by that of the sum
_NEW_ADDEND = 2.0**-9  # the same ratio after rescaling, with a margin to the limit
_WEAKEST_CONVERTED = 2.0**-8  # XNNPACK's limit for the scale of QUANTIZE's input divided by that of its result


def strengthen(model: Any) -> None:
    """Rescale such addends of an int8 `ModelT`, in place."""
    graph = model.subgraphs[0]
    parts: dict[str, str] = {}  # by name of the result of an added operator, the name of the sum
    for operator in list(graph.operators or []):
        if costs.op_code(model.operatorCodes[operator.opcodeIndex]) not in (Op.ADD, Op.SUB):
            continue
        target = graph.tensors[int(operator.outputs[0])]
        for position, index in enumerate(operator.inputs):
            source = graph.tensors[int(index)]
            if not _is_weak(source, target):
                continue
            scale = _scale(target) * _NEW_ADDEND
            if model.buffers[source.buffer].data is not None:
                operator.inputs = _with_input(operator, position, _rescaled_constant(model, source, target, scale))
                continue
            if _scale(source) / scale < _WEAKEST_CONVERTED:
                continue  # too small for QUANTIZE as well
            place = graph.operators.index(operator)
            graph.operators.insert(place, _rescaling(model, int(index), target, scale))
            parts[operator_names.text(graph.tensors[-1].name)] = operator_names.text(target.name)
            operator.inputs = _with_input(operator, position, len(graph.tensors) - 1)
    operator_names.add(model, parts)


def _is_weak(source: Any, target: Any) -> bool:
    eight_bits = (schema.TensorType.INT8, schema.TensorType.UINT8)
    if source.type not in eight_bits or target.type != source.type:
        return False
    return _scale(source) < _scale(target) * _WEAKEST_ADDEND


def _scale(tensor: Any) -> float:
    return float(tensor.quantization.scale[0])


def _with_input(operator: Any, position: int, index: int) -> Any:
    inputs = np.array(operator.inputs)
    inputs[position] = index
    return inputs


def _rescaled_constant(model: Any, source: Any, target: Any, scale: float) -> int:
    """The index of a new tensor with the constant's values in `scale`; the old one stays for other readers."""
    kind = np.int8 if source.type == schema.TensorType.INT8 else np.uint8
    zero = int(source.quantization.zeroPoint[0])
    values = np.frombuffer(bytes(model.buffers[source.buffer].data), kind).astype(np.float64) - zero
    limits = np.iinfo(kind)
    stored = np.clip(np.rint(values * (_scale(source) / scale)) + zero, limits.min, limits.max).astype(kind)
    rescaled = _in_steps(source, target.name + b"_addend", scale)
    rescaled.buffer = len(model.buffers)
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(stored.tobytes(), np.uint8)
    model.buffers.append(buffer)
    tensors = model.subgraphs[0].tensors
    tensors.append(rescaled)
    return len(tensors) - 1


def _in_steps(source: Any, name: bytes, scale: float) -> Any:
    """A copy of a tensor under another name and with another scale."""
    rescaled = copy.deepcopy(source)
    rescaled.name = name
    rescaled.quantization.scale = np.asarray([scale], np.float32)
    rescaled.quantization.min = rescaled.quantization.max = None
    return rescaled


def _rescaling(model: Any, index: int, target: Any, scale: float) -> Any:
    """A QUANTIZE from a tensor to a new one, the graph's last; the zero point stays, so that no value overflows."""
    graph = model.subgraphs[0]
    graph.tensors.append(_in_steps(graph.tensors[index], target.name + b"_addend", scale))
    operator = schema.OperatorT()
    operator.opcodeIndex = operator_codes.index(model, Op.QUANTIZE)
    operator.inputs, operator.outputs = np.asarray([index], np.int32), np.asarray([len(graph.tensors) - 1], np.int32)
    operator.builtinOptions, operator.builtinOptionsType = schema.QuantizeOptionsT(), Options.QuantizeOptions
    return operator
