"""Changes filters with weights too small relative to their bias, so that they can be quantised.

    Given   y = 0 ∗ x + b              the int8 scale of such a filter is nearly 0, and b / (scale of x · scale)
                                       overflows the 32 bits of a quantised bias: y is wrong
    Result  y = w₀ · x₀ + b,           w₀ the smallest weight without overflow: y changes by less than b · 2⁻¹⁵

Such filters result from weight decay, pruning and batch norms of scale zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from slimseg.tflite import costs

Op = schema.BuiltinOperator
_FILTER_AXIS = {Op.CONV_2D: 0, Op.FULLY_CONNECTED: 0, Op.DEPTHWISE_CONV_2D: 3}
_LARGEST_BIAS, _LARGEST_WEIGHT, _STEPS = 2.0**30, 127, 255


def revive(model: Any, ranges: Mapping[str, tuple[float, float]]) -> None:
    """Change such filters of a float `ModelT`, in place; `ranges` are (min, max) of activations by tensor name."""
    graph = model.subgraphs[0]
    for operator in graph.operators or []:
        axis = _FILTER_AXIS.get(costs.op_code(model.operatorCodes[operator.opcodeIndex]))
        if axis is None or len(operator.inputs) < 3 or operator.inputs[2] < 0:
            continue
        source, weight, bias = (graph.tensors[int(index)] for index in operator.inputs[:3])
        low, high = ranges.get(source.name.decode(errors="replace"), (0.0, 0.0))
        values, biases = _values(model, weight), _values(model, bias)
        if values is None or biases is None or high <= low:
            continue
        needed = np.abs(biases) * (_LARGEST_WEIGHT * _STEPS / (_LARGEST_BIAS * (high - low)))
        filters = np.moveaxis(values.reshape(weight.shape), axis, 0)
        flat = filters.reshape(len(filters), -1)
        weak = np.abs(flat).max(1) < needed
        if weak.any():
            flat = flat.copy()
            flat[weak, 0] = needed[weak]
            result = np.moveaxis(flat.reshape(filters.shape), 0, axis)
            model.buffers[weight.buffer].data = np.frombuffer(result.astype(np.float32).tobytes(), np.uint8)


def _values(model: Any, tensor: Any) -> np.ndarray[Any, Any] | None:
    """The float32 values of a constant, flat; None for any other tensor."""
    data = model.buffers[tensor.buffer].data
    if tensor.type != schema.TensorType.FLOAT32 or data is None or not len(data):
        return None
    return np.frombuffer(bytes(data), np.float32)
