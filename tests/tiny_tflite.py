"""A tiny network in a file: convolution + ReLU, then concatenation, then argmax where asked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as tflite

from slimseg.graph.description import Description
from slimseg.tflite.schema import ModelBuilder

CLASSES = ("road", "sky")


def build(path: Path, seed: int = 0, mask: bool = False, size: int = 32) -> Path:
    """Input x (1, size, size, 4), operators conv (1, size, size, 8), both (.., 16) and, for a mask, argmax."""
    random = np.random.default_rng(seed)
    builder = ModelBuilder()
    image = builder.tensor("x", (1, size, size, 4))
    weights = builder.constant("w", random.standard_normal((8, 3, 3, 4), np.float32))
    bias = builder.constant("b", random.standard_normal(8, np.float32))
    conv = builder.tensor("conv", (1, size, size, 8))
    options = tflite.Conv2DOptionsT()
    options.strideH = options.strideW = options.dilationHFactor = options.dilationWFactor = 1
    options.fusedActivationFunction = tflite.ActivationFunctionType.RELU
    codes, kinds = tflite.BuiltinOperator, tflite.BuiltinOptions
    builder.operator(codes.CONV_2D, [image, weights, bias], conv, options, kinds.Conv2DOptions)
    both = builder.tensor("both", (1, size, size, 16))
    join = tflite.ConcatenationOptionsT()
    join.axis = 3
    builder.operator(codes.CONCATENATION, [conv, conv], both, join, kinds.ConcatenationOptions)
    output = both
    if mask:
        axis = builder.constant("axis", np.array(3, np.int32))
        output = builder.tensor("mask", (1, size, size), np.int32)
        argmax = tflite.ArgMaxOptionsT()
        argmax.outputType = tflite.TensorType.INT32
        builder.operator(codes.ARG_MAX, [both, axis], output, argmax, kinds.ArgMaxOptions)
    path.write_bytes(builder.finish([image], [output], Description(classes=CLASSES)))
    return path


@pytest.fixture(scope="session")
def build_tiny() -> Callable[..., Path]:
    return build


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("tiny") / "tiny.tflite")


@pytest.fixture(scope="session")
def tiny_mask(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("tiny") / "mask.tflite", mask=True)
