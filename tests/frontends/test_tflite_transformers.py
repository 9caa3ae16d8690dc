"""What transformers consist of in a `.tflite`, as TensorFlow and litert-torch write it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from ai_edge_litert import schema_py_generated as tflite

import slimseg
from slimseg.graph.description import Description
from slimseg.graph.graph import Graph
from slimseg.runtimes.litert.runtime import LITERT
from slimseg.tflite.schema import ModelBuilder

CODES, KINDS = tflite.BuiltinOperator, tflite.BuiltinOptions
SHAPE, TOKENS = (1, 8, 8, 4), (1, 64, 4)


class Network:
    """A file under construction: `add` appends an operator and returns its result."""

    def __init__(self) -> None:
        self.builder = ModelBuilder()
        self.image = self.builder.tensor("x", SHAPE)
        self.count = 0

    def constant(self, values: Any, kind: type = np.float32) -> int:
        self.count += 1
        return self.builder.constant(f"c{self.count}", np.asarray(values, kind))

    def add(self, op: str, inputs: list[int], shape: tuple[int, ...], options: str = "", **settings: Any) -> int:
        self.count += 1
        result = self.builder.tensor(f"{op.lower()}_{self.count}", shape)
        made = getattr(tflite, f"{options}T")() if options else None
        for name, value in settings.items():
            setattr(made, name, value)
        kind = (made, getattr(KINDS, options)) if options else ()
        self.builder.operator(getattr(CODES, op), inputs, result, *kind)
        return result

    def reshape(self, source: int, shape: tuple[int, ...]) -> int:
        return self.add("RESHAPE", [source, self.constant(shape, np.int32)], shape)

    def transpose(self, source: int, order: tuple[int, ...], shape: tuple[int, ...]) -> int:
        return self.add("TRANSPOSE", [source, self.constant(order, np.int32)], shape)

    def kinds(self, result: int, path: Path) -> list[str]:
        """The classes of the Graph's layers; the Graph computes what LiteRT does."""
        path.write_bytes(self.builder.finish([self.image], [result], Description()))
        graph: Graph = slimseg.load(path)
        image = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
        with torch.no_grad():
            ours = graph(torch.from_numpy(image).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()
        np.testing.assert_allclose(LITERT.predict(path, image), ours, atol=1e-5)
        return [type(graph.layer(node)).__name__ for node in graph.layers()]


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32)


def test_a_layer_norm_as_tensorflow_writes_it(tmp_path: Path) -> None:
    """x·r + (t − mean·r), with r = s / √(variance + ε)."""
    net = Network()
    axes, few = net.constant([3], np.int32), (*SHAPE[:3], 1)
    mean = net.add("MEAN", [net.image, axes], few, "ReducerOptions", keepDims=True)
    square = net.add("SQUARED_DIFFERENCE", [net.image, mean], SHAPE)
    variance = net.add("MEAN", [square, axes], few, "ReducerOptions", keepDims=True)
    steady = net.add("ADD", [variance, net.constant(1e-3)], few, "AddOptions")
    inverse = net.add("RSQRT", [steady], few)
    factor = net.add("MUL", [inverse, net.constant(random(4))], SHAPE, "MulOptions")
    first = net.add("MUL", [net.image, factor], SHAPE, "MulOptions")
    second = net.add("MUL", [mean, factor], SHAPE, "MulOptions")
    offset = net.add("SUB", [net.constant(random(4)), second], SHAPE, "SubOptions")
    result = net.add("ADD", [first, offset], SHAPE, "AddOptions")
    assert net.kinds(result, tmp_path / "m.tflite") == ["Normalise", "Affine"]


def test_attention(tmp_path: Path) -> None:
    """Queries are taken from a PACK by GATHER; the product turns both of its operands."""
    net = Network()
    tokens = net.reshape(net.image, TOKENS)
    packed = net.add("PACK", [tokens, tokens, tokens], (1, 64, 3, 4), "PackOptions", axis=2, valuesCount=3)
    gathered = [packed, net.constant(1, np.int32)]
    query = net.add("GATHER", gathered, TOKENS, "GatherOptions", axis=2)
    turned = net.transpose(query, (0, 2, 1), (1, 4, 64))
    scores = net.add("BATCH_MATMUL", [turned, tokens], (1, 64, 64), "BatchMatMulOptions", adjX=True, adjY=True)
    scaled = net.add("MUL", [scores, net.constant(0.3)], (1, 64, 64), "MulOptions")
    weights = net.add("SOFTMAX", [scaled], (1, 64, 64), "SoftmaxOptions", beta=1.0)
    mixed = net.add("BATCH_MATMUL", [weights, tokens], TOKENS, "BatchMatMulOptions")
    matrix = net.constant(random(4, 4))
    linear = net.add("BATCH_MATMUL", [mixed, matrix], TOKENS, "BatchMatMulOptions")
    result = net.reshape(net.add("GELU", [linear], TOKENS, "GeluOptions", approximate=True), SHAPE)
    found = net.kinds(result, tmp_path / "m.tflite")
    products = ["MatMul", "Affine", "Softmax", "MatMul", "Linear", "GELU", "Reshape"]
    assert found == ["Reshape", "Reshape", "Concat", "Slice", "Reshape", *products]


def test_a_class_token(tmp_path: Path) -> None:
    net = Network()
    tokens = net.reshape(net.image, TOKENS)
    inputs = [net.constant(random(1, 1, 4)), tokens]
    joined = net.add("CONCATENATION", inputs, (1, 65, 4), "ConcatenationOptions", axis=1)
    scores = net.add("BATCH_MATMUL", [joined, joined], (1, 65, 65), "BatchMatMulOptions", adjY=True)
    mixed = net.add("BATCH_MATMUL", [scores, joined], (1, 65, 4), "BatchMatMulOptions")
    begin, size = net.constant([0, 1, 0], np.int32), net.constant([1, 64, 4], np.int32)
    rest = net.add("SLICE", [mixed, begin, size], TOKENS)
    found = net.kinds(net.reshape(rest, SHAPE), tmp_path / "m.tflite")
    assert found == ["Reshape", "Constant", "Concat", "MatMul", "MatMul", "Slice", "Reshape"]
