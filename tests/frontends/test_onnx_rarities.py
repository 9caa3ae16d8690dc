"""Rarer operators of ONNX, of opsets 7 to 24, compared with onnxruntime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto
from onnx_files import difference, node, weights, write

from slimseg.frontends.onnx import from_file


def ints(*values: int) -> np.ndarray:
    return np.asarray(values, np.int64)


def number(value: float) -> np.ndarray:
    return np.asarray(value, np.float32)


def sizes(*values: float) -> np.ndarray:
    return np.asarray(values, np.float32)


NONE = np.zeros(0, np.float32)
GRID = np.stack(np.meshgrid(np.linspace(-1.4, 1.3, 8), np.linspace(-1.2, 1.4, 8)), -1)[None].astype(np.float32)
HALVES = {"kernel_shape": [2, 2], "strides": [2, 2]}
TOKENS = [node("Reshape", "x s", "q"), node("Transpose", "q", "t", perm=[0, 2, 1])]
MAP = [node("Transpose", "a", "u", perm=[0, 2, 1]), node("Reshape", "u m")]
SHAPES = {"s": ints(1, 4, 64), "m": ints(1, 4, 8, 8)}
ROWS = [node("Reshape", "x s", "a"), node("Transpose", "a", "t", perm=[2, 0, 1])]
BACK = [node("Transpose", "o", "p", perm=[2, 1, 3, 0]), node("Reshape", "p q")]
ROW_SHAPES = {"s": ints(1, 32, 8), "q": ints(1, 3, 8, 2)}
Case = tuple[list[Any], dict[str, np.ndarray], int]


def recurrent(kind: str, gates: int, **settings: int) -> Case:
    layer = node(kind, "t w r b", "o", hidden_size=3, direction="bidirectional", **settings)
    values = {"w": weights(2, gates * 3, 32), "r": weights(2, gates * 3, 3), "b": weights(2, gates * 6)}
    return [*ROWS, layer, *BACK], {**ROW_SHAPES, **values}, 14


CASES: dict[str, Case] = {
    "angles": (
        [node("Tanh", "x", "t"), node("Asin", "t", "a"), node("Acos", "t", "b"), node("Atan", "x", "c"),
         node("Tan", "t", "d"), node("Sum", "a b c d")], {}, 13,
    ),
    "hyperbolic": (
        [node("Sinh", "x", "a"), node("Cosh", "x", "b"), node("Asinh", "x", "c"), node("Acosh", "b", "d"),
         node("Sum", "a b c d")], {}, 13,
    ),
    "Round and Mod": (
        [node("Mul", "x f", "t"), node("Round", "t", "a"), node("Mod", "t h", "b", fmod=1), node("Add", "a b")],
        {"f": number(4), "h": number(0.7)}, 13,
    ),
    "Xor, IsNaN, Cast to truth": (
        [node("Greater", "x h", "a"), node("Cast", "x", "b", to=TensorProto.BOOL), node("Xor", "a b", "c"),
         node("IsNaN", "x", "n"), node("Or", "c n", "d"), node("Where", "d x h")], {"h": number(0.3)}, 13,
    ),
    "Mean, Max and Min with constants": (
        [node("Mean", "x c", "a"), node("Max", "a c", "b"), node("Min", "b d")],
        {"c": weights(1, 4, 8, 8), "d": weights(4, 1, 1)}, 13,
    ),
    "TopK": ([node("TopK", "x k", "y i", axis=1)], {"k": ints(2)}, 13),
    "TopK, smallest of a side": ([node("TopK", "x k", "y i", axis=3, largest=0)], {"k": ints(3)}, 13),
    "ArgMin and OneHot": (
        [node("ArgMin", "x", "a", axis=1, keepdims=0), node("OneHot", "a d v", axis=1)],
        {"d": ints(4), "v": sizes(0.5, 2)}, 13,
    ),
    "ArgMax, last": (
        [node("ArgMax", "x", "a", axis=2, select_last_index=1), node("Cast", "a", to=TensorProto.FLOAT)], {}, 13,
    ),
    "Hardmax": ([node("Hardmax", "x", axis=1)], {}, 13),
    "LRN": ([node("LRN", "x", size=3, alpha=0.3, beta=0.75)], {}, 13),
    "LpPool": ([node("LpPool", "x", "p", **HALVES), node("GlobalLpPool", "p")], {}, 13),
    "MeanVarianceNormalization": ([node("MeanVarianceNormalization", "x")], {}, 13),
    "Trilu": ([node("Trilu", "x", upper=0)], {}, 14),
    "CenterCropPad": ([node("CenterCropPad", "x s", axes=[2, 3])], {"s": ints(5, 11)}, 18),
    "Compress": ([node("Compress", "x m", axis=1)], {"m": np.asarray([1, 0, 1, 0], bool)}, 13),
    "GatherElements": ([node("GatherElements", "x i", axis=1)], {"i": np.indices((1, 2, 8, 8))[3] % 4}, 13),
    "ScatterElements": (
        [node("ScatterElements", "x i u", axis=1)],
        {"i": np.full((1, 1, 8, 8), 2), "u": weights(1, 1, 8, 8)}, 13,
    ),
    "ReduceProd": ([node("ReduceProd", "x", axes=[1])], {}, 13),
    "reduced with the batch": ([node("ReduceMean", "x a", "m"), node("Sub", "x m")], {"a": ints(0, 2)}, 18),
    "unpooling": (
        [node("MaxPool", "x", "p i", **HALVES), node("Relu", "p", "r"), node("MaxUnpool", "r i", **HALVES)], {}, 13,
    ),
    "unpooling as a scatter": (
        [node("MaxPool", "x", "p i", **HALVES), node("MaxPool", "x", "_1 j", kernel_shape=[1, 1]),
         node("Slice", "j z e l", "o"), node("Sub", "i o", "k"), node("Add", "k c", "n"), node("Reshape", "n f", "g"),
         node("Unsqueeze", "g f", "h"), node("Reshape", "p f", "v"), node("ScatterND", "w h v", "t"),
         node("Reshape", "t m")],
        {"z": ints(0, 0), "e": ints(1, 1), "l": ints(2, 3), "c": np.arange(4).reshape(1, 4, 1, 1) * 64, "f": ints(-1),
         "w": np.zeros(256, np.float32), "m": ints(1, 4, 8, 8)}, 13,
    ),
    "DeformConv": (
        [node("Conv", "x o", "t", pads=[1, 1, 1, 1]), node("DeformConv", "x w t b _", pads=[1, 1, 1, 1])],
        {"o": weights(18, 4, 3, 3) * 0.3, "w": weights(5, 4, 3, 3), "b": weights(5)}, 19,
    ),
    "DFT": (
        [node("Unsqueeze", "x a", "u"), node("DFT", "u _ d", "f", onesided=1), node("ReduceL2", "f a", keepdims=0)],
        {"a": ints(-1), "d": np.asarray(3)}, 20,
    ),
    "cubic": ([node("Resize", "x r s", mode="cubic", cubic_coeff_a=-0.5)], {"r": NONE, "s": sizes(1, 1, 2, 1.5)}, 13),
    "cubic, excluding": (
        [node("Resize", "x r s", mode="cubic", exclude_outside=1)], {"r": NONE, "s": sizes(1, 1, 2, 2)}, 13,
    ),
    "antialiased": ([node("Resize", "x _ _ s", mode="linear", antialias=1, axes=[2, 3])], {"s": ints(3, 5)}, 18),
    "antialiased cubic": ([node("Resize", "x _ _ s", mode="cubic", antialias=1)], {"s": ints(1, 4, 3, 5)}, 18),
    "nearest, rounded up": (
        [node("Resize", "x _ _ s", mode="nearest", coordinate_transformation_mode="half_pixel", nearest_mode="ceil")],
        {"s": ints(1, 4, 11, 5)}, 13,
    ),
    "half_pixel_symmetric": (
        [node("Resize", "x _ s", mode="linear", coordinate_transformation_mode="half_pixel_symmetric", axes=[2, 3])],
        {"s": sizes(1.3, 2.2)}, 19,
    ),
    "cropped": (
        [node("Resize", "x r _ s", mode="linear", coordinate_transformation_mode="tf_crop_and_resize")],
        {"r": sizes(0, 0, 0.1, 0.1, 1, 1, 0.9, 0.9), "s": ints(1, 4, 8, 8)}, 13,
    ),
    "as large as fits": (
        [node("Resize", "x _ _ s", mode="linear", axes=[2, 3], keep_aspect_ratio_policy="not_larger")],
        {"s": ints(12, 20)}, 18,
    ),
    "resized channels": ([node("Resize", "x _ s", mode="linear")], {"s": sizes(1, 2, 1, 1)}, 18),
    "batch norm in training": (
        [node("BatchNormalization", "x a b m v", "y n w", training_mode=1)],
        {"a": weights(4), "b": weights(4), "m": weights(4), "v": weights(4) ** 2}, 14,
    ),
    "batch norm in training, older": (
        [node("BatchNormalization", "x a b m v", "y n w p q")],
        {"a": weights(4), "b": weights(4), "m": weights(4), "v": weights(4) ** 2}, 9,
    ),
    "attention, causal and bounded": (
        [*TOKENS, node("Attention", "t t t", "a", q_num_heads=2, kv_num_heads=2, is_causal=1, softcap=5.0), *MAP],
        SHAPES, 23,
    ),
    "attention, shared keys": (
        [*TOKENS, node("Slice", "t z e l", "k"), node("Attention", "t k k", "a", q_num_heads=2, kv_num_heads=1), *MAP],
        {**SHAPES, "z": ints(0), "e": ints(2), "l": ints(2)}, 23,
    ),
    "rotary positions": (
        [node("Reshape", "x s", "q"), node("RotaryEmbedding", "q c n", "r"), node("Reshape", "r m")],
        {"s": ints(1, 2, 32, 4), "c": weights(1, 32, 2), "n": weights(1, 32, 2), "m": ints(1, 4, 8, 8)}, 23,
    ),
    "swish": ([node("Swish", "x", alpha=1.5)], {}, 24),
    "nearest samples": ([node("GridSample", "x g", mode="nearest")], {"g": GRID}, 20),
    "reflected samples": ([node("GridSample", "x g", mode="linear", padding_mode="reflection")], {"g": GRID}, 20),
    "cubic samples": ([node("GridSample", "x g", mode="cubic", padding_mode="border")], {"g": GRID}, 20),
    "list": (
        [node("SplitToSequence", "x n", "q", axis=1), node("SequenceAt", "q z", "a"), node("SequenceAt", "q o", "b"),
         node("SequenceConstruct", "a b", "r"), node("SequenceInsert", "r b", "t"), node("SequenceErase", "t z", "u"),
         node("ConcatFromSequence", "u", axis=1)],
        {"n": np.asarray(2), "z": np.asarray(0), "o": np.asarray(1)}, 13,
    ),
    "diagonal": (
        [node("ReduceMean", "x", "m", axes=[0, 1], keepdims=0), node("EyeLike", "m", "e"), node("Add", "x e")], {}, 13,
    ),
    "lines": (
        [node("Reshape", "x s", "u"), node("Conv", "u w", "v", pads=[1, 1]), node("Reshape", "v m")],
        {**SHAPES, "w": weights(4, 4, 3)}, 13,
    ),
    "volumes": (
        [node("Unsqueeze", "x a", "u"), node("Conv", "u w", "v", pads=[1, 1, 1, 1, 1, 1]), node("Squeeze", "v b")],
        {"a": ints(1), "b": ints(1), "w": weights(1, 1, 3, 3, 3)}, 13,
    ),
    "dilated means": ([node("AveragePool", "x", kernel_shape=[3, 3], dilations=[2, 2])], {}, 19),
    "LSTM": recurrent("LSTM", 4),
    "GRU": recurrent("GRU", 3, linear_before_reset=1),
    "RNN": recurrent("RNN", 1),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_operator_equals_onnxruntime(name: str, tmp_path: Path) -> None:
    nodes, constants, opset = CASES[name]
    path = write(tmp_path / "operator.onnx", nodes, constants, opset=opset)
    assert difference(path, from_file(path)) < 3e-5
