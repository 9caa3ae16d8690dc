"""Activations that the range of a quantised tensor amounts to: values outside it become its ends.

int8, zero point −128     the least value stands for 0: as after a ReLU
and 127 stands for 6      as after a ReLU6
"""

from __future__ import annotations

from typing import Any

from ai_edge_litert import schema_py_generated as schema

_LEAST = {schema.TensorType.INT8: -128, schema.TensorType.UINT8: 0}
_STEPS = 255
_SIX = 6.0
_ROUNDING = 1e-4


def activation(tensor: Any) -> int:
    """The fused activation that a quantised tensor's range amounts to; `NONE` for any other range or tensor."""
    largest = largest_from_zero(tensor)
    if largest is None:
        return int(schema.ActivationFunctionType.NONE)
    is_six = abs(largest - _SIX) <= _SIX * _ROUNDING
    return int(schema.ActivationFunctionType.RELU6 if is_six else schema.ActivationFunctionType.RELU)


def changes_nothing(code: int, tensor: Any) -> bool:
    """Whether an activation leaves all values that a quantised tensor can have as they are."""
    largest = largest_from_zero(tensor)
    if largest is None:
        return False
    kinds = schema.ActivationFunctionType
    return code == kinds.RELU or (code == kinds.RELU6 and largest <= _SIX * (1 + _ROUNDING))


def largest_from_zero(tensor: Any) -> float | None:
    """The largest value of an 8-bit tensor whose least value is 0; None for any other tensor."""
    quantised = tensor.quantization
    if tensor.type not in _LEAST or quantised is None or quantised.scale is None or len(quantised.scale) != 1:
        return None
    zero = 0 if quantised.zeroPoint is None or not len(quantised.zeroPoint) else int(quantised.zeroPoint[0])
    return float(quantised.scale[0]) * _STEPS if zero == _LEAST[tensor.type] else None
