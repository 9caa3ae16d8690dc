"""Widens quantisation ranges of int8 outputs that are too narrow for XNNPACK.

    Given   y = w ∗ x + b, int8      XNNPACK accepts a layer only if s = (scale of x · scale of w) / (scale of y) is
                                     below 2⁸ for every filter; above, the delegate fails and the process crashes
    Result  a range of y for which s is at most 2⁷: one unit of the accumulator is then 128 steps of y, so that no two
                                     of its values are rounded to the same

Such a range results from a ReLU that is zero on every calibration image; in training half of a branch may become zero.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from slimseg.tflite import costs

Op = schema.BuiltinOperator
Ranges = dict[str, tuple[float, float]]
_OPERANDS = {  # positions of the input and of the weights
    Op.CONV_2D: (0, 1),
    Op.DEPTHWISE_CONV_2D: (0, 1),
    Op.FULLY_CONNECTED: (0, 1),
    Op.TRANSPOSE_CONV: (2, 1),
}
_LIMIT, _WANTED = 2.0**8, 2.0**7
_STEPS = 255


def widened(model: Any, ranges: Ranges) -> Ranges:
    """Wider ranges for the outputs of an int8 `ModelT` that are too narrow, by tensor name; empty if there are none.

    A wider output increases the scale of the next layer's input, so that layer's output may have to be widened next.

    Args:
        ranges: (min, max) of activations that the model was quantised with, by tensor name.
    """
    graph = model.subgraphs[0]
    result: Ranges = {}
    for operator in graph.operators or []:
        places = _OPERANDS.get(costs.op_code(model.operatorCodes[operator.opcodeIndex]))
        if places is None:
            continue
        source, weight, target = (
            graph.tensors[int(index)] for index in (*(operator.inputs[place] for place in places), operator.outputs[0])
        )
        taken, weights, given = (_largest_scale(tensor) for tensor in (source, weight, target))
        unit = taken * weights
        if given and unit / given >= _LIMIT:
            name = target.name.decode(errors="replace")
            result[name] = _at_least(ranges.get(name, (0.0, 0.0)), _STEPS * unit / _WANTED)
    return result


def _at_least(ends: tuple[float, float], width: float) -> tuple[float, float]:
    """A range of the given width that includes zero, with the ends in the same proportion as before."""
    low, high = min(ends[0], 0.0), max(ends[1], 0.0)
    if high - low <= 0:
        return 0.0, width
    return low * width / (high - low), high * width / (high - low)


def _largest_scale(tensor: Any) -> float:
    """The largest scale of all channels; 0 for a tensor that is not int8."""
    quantised = tensor.quantization
    if tensor.type != schema.TensorType.INT8 or quantised is None or quantised.scale is None:
        return 0.0
    return float(np.max(quantised.scale))
