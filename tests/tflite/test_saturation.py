"""Ranges of quantised tensors that amount to an activation."""

from __future__ import annotations

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from slimseg.tflite import saturation

Kinds = schema.ActivationFunctionType


def tensor(scale, zero_point, dtype=schema.TensorType.INT8):
    made = schema.TensorT()
    made.type = dtype
    made.quantization = schema.QuantizationParametersT()
    made.quantization.scale, made.quantization.zeroPoint = np.asarray([scale]), np.asarray([zero_point])
    return made


@pytest.mark.parametrize(
    ("made", "activation", "relu6_changes_nothing"),
    [
        (tensor(0.01, -128), Kinds.RELU, True),
        (tensor(6 / 255, -128), Kinds.RELU6, True),
        (tensor(0.1, -128), Kinds.RELU, False),
        (tensor(0.1, 0, schema.TensorType.UINT8), Kinds.RELU, False),
        (tensor(0.01, 0), Kinds.NONE, False),
        (tensor(0.01, -128, schema.TensorType.INT16), Kinds.NONE, False),
    ],
)
def test_the_range_of_a_result(made, activation, relu6_changes_nothing):
    assert saturation.activation(made) == activation
    assert saturation.changes_nothing(Kinds.RELU6, made) == relu6_changes_nothing
    assert saturation.changes_nothing(Kinds.RELU, made) == (activation != Kinds.NONE)
