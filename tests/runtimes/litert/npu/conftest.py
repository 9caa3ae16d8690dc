"""Small files for NPUs; tests that need Qualcomm's compiler skip where it is not installed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as tflite

from slimseg.graph.description import Description
from slimseg.runtimes.litert.npu import libraries
from slimseg.tflite import file
from slimseg.tflite.schema import ModelBuilder

SIZE = 16


@pytest.fixture(scope="session")
def qualcomm() -> libraries.Libraries:
    """Where Qualcomm's compiler is; the test skips where it is not installed."""
    found = libraries.find()
    if found is None:
        pytest.skip(libraries.missing())
    return found


@pytest.fixture(scope="session")
def int8_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Input (1, 16, 16, 4), one convolution with ReLU, output (1, 16, 16, 8); all int8."""
    random = np.random.default_rng(0)
    builder = ModelBuilder()
    bias = builder.constant("bias", random.integers(-500, 500, 8).astype(np.int32))
    image = builder.tensor("image", (1, SIZE, SIZE, 4), np.int8)
    weights = builder.constant("weights", random.integers(-127, 128, (8, 3, 3, 4)).astype(np.int8))
    conv = builder.tensor("conv", (1, SIZE, SIZE, 8), np.int8)
    for tensor, scale, zero_point in ((image, 0.05, 3), (weights, 0.01, 0), (bias, 0.05 * 0.01, 0), (conv, 0.1, -128)):
        grid = tflite.QuantizationParametersT()
        grid.scale, grid.zeroPoint = np.array([scale], np.float32), np.array([zero_point], np.int64)
        builder.subgraph.tensors[tensor].quantization = grid
    options = tflite.Conv2DOptionsT()
    options.strideH = options.strideW = options.dilationHFactor = options.dilationWFactor = 1
    options.fusedActivationFunction = tflite.ActivationFunctionType.RELU
    kinds = tflite.BuiltinOptions
    builder.operator(tflite.BuiltinOperator.CONV_2D, [image, weights, bias], conv, options, kinds.Conv2DOptions, 3)
    path = tmp_path_factory.mktemp("npu") / "int8.tflite"
    path.write_bytes(builder.finish([image], [conv], Description(classes=tuple("abcdefgh"))))
    return path


@pytest.fixture(scope="session")
def broken_up(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny network, whose convolution is followed by an operator that no NPU knows, and by its concatenation."""
    _, model = file.opened(tiny)
    graph = model.subgraphs[0]
    conv, join = graph.operators
    strange, code = tflite.OperatorT(), tflite.OperatorCodeT()
    code.builtinCode, code.deprecatedBuiltinCode, code.customCode = tflite.BuiltinOperator.CUSTOM, 32, b"Strange"
    model.operatorCodes.append(code)
    tensor = tflite.TensorT()
    tensor.name, tensor.shape, tensor.type = b"strange", graph.tensors[conv.outputs[0]].shape, tflite.TensorType.FLOAT32
    graph.tensors.append(tensor)
    strange.opcodeIndex = len(model.operatorCodes) - 1
    strange.inputs, strange.outputs = conv.outputs, np.array([len(graph.tensors) - 1], np.int32)
    join.inputs = np.repeat(strange.outputs, 2)
    graph.operators = [conv, strange, join]
    path = tmp_path_factory.mktemp("npu") / "broken_up.tflite"
    path.write_bytes(file.pack(model))
    return path
