"""Every operator against onnxruntime, in the spellings that exporters of opset 7 to 20 use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto
from onnx_files import difference, kinds, node, weights, write

from slimseg.errors import ModelError, UnknownOperator
from slimseg.frontends.onnx import from_file


def ints(*values: int) -> np.ndarray:
    return np.asarray(values, np.int64)


def floats(*values: float) -> np.ndarray:
    return np.asarray(values, np.float32)


def number(value: float) -> np.ndarray:
    return np.asarray(value, np.float32)


NOTHING = np.zeros(0, np.float32)
DOUBLE = {"r": NOTHING, "s": floats(1, 1, 2, 2)}
SIZES = {"r": NOTHING, "e": NOTHING, "s": ints(1, 4, 13, 5)}
W43 = {"w": weights(4, 4, 3, 3)}
UP = {"kernel_shape": [3, 3], "strides": [2, 2]}

Case = tuple[list[Any], dict[str, np.ndarray], dict[str, Any], list[str]]
CASES: dict[str, Case] = {
    "conv SAME_UPPER strided": ([node("Conv", "x w", auto_pad="SAME_UPPER", **UP)], W43, {}, ["Pad", "Conv2d"]),
    "conv SAME_LOWER strided": ([node("Conv", "x w", auto_pad="SAME_LOWER", **UP)], W43, {}, ["Pad", "Conv2d"]),
    "conv asymmetric": ([node("Conv", "x w", pads=[0, 0, 1, 1], **UP)], W43, {}, ["Pad", "Conv2d"]),
    "conv dilated": ([node("Conv", "x w", pads=[2, 2, 2, 2], dilations=[2, 2])], W43, {}, ["Conv2d"]),
    "conv grouped": ([node("Conv", "x w b", group=2)], {"w": weights(6, 2, 3, 3), "b": weights(6)}, {}, ["Conv2d"]),
    "conv 16 bits": (
        [node("Cast", "h", "w", to=TensorProto.FLOAT), node("Conv", "x w")],
        {"h": weights(4, 4, 3, 3).astype(np.float16)}, {}, ["Conv2d"],
    ),
    "convT plain": ([node("ConvTranspose", "x w", **UP)], W43, {}, ["ConvTranspose2d"]),
    "convT output padding": (
        [node("ConvTranspose", "x w", pads=[1, 1, 1, 1], output_padding=[1, 1], **UP)], W43, {}, ["ConvTranspose2d"],
    ),
    "convT asymmetric": (
        [node("ConvTranspose", "x w", pads=[0, 0, 1, 1], **UP)], W43, {}, ["CroppedConvTranspose2d"],
    ),
    "convT cut before": ([node("ConvTranspose", "x w", pads=[1, 1, 0, 0], **UP)], W43, {}, ["ConvTranspose2d"]),
    "convT SAME_UPPER": (
        [node("ConvTranspose", "x w", auto_pad="SAME_UPPER", **UP)], W43, {}, ["CroppedConvTranspose2d"],
    ),
    "convT SAME_LOWER": ([node("ConvTranspose", "x w", auto_pad="SAME_LOWER", **UP)], W43, {}, ["ConvTranspose2d"]),
    "convT output shape": ([node("ConvTranspose", "x w", output_shape=[16, 16], **UP)], W43, {}, ["ConvTranspose2d"]),
    "convT grouped": (
        [node("ConvTranspose", "x w b", group=2, **UP)],
        {"w": weights(4, 3, 3, 3), "b": weights(6)}, {}, ["ConvTranspose2d"],
    ),
    "batch norm": (
        [node("BatchNormalization", "x a b m v", epsilon=1e-3)],
        {"a": weights(4), "b": weights(4), "m": weights(4), "v": weights(4) ** 2}, {}, ["BatchNorm2d"],
    ),
    "instance norm": (
        [node("InstanceNormalization", "x a b")], {"a": weights(4), "b": weights(4)}, {},
        ["Normalise", "Affine"],
    ),
    "group norm": (
        [node("Reshape", "x s", "g"), node("InstanceNormalization", "g a b", "h"), node("Shape", "x", "t"),
         node("Reshape", "h t")],
        {"s": ints(0, 2, -1), "a": weights(2), "b": weights(2)}, {},
        ["Reshape", "Normalise", "Affine", "Reshape"],
    ),
    "layer norm over channels": (
        [node("Transpose", "x", "c", perm=[0, 2, 3, 1]), node("LayerNormalization", "c a b", "d", axis=-1),
         node("Transpose", "d", "y", perm=[0, 3, 1, 2])],
        {"a": weights(4), "b": weights(4)}, {"opset": 17},
        ["Normalise", "Affine"],
    ),
    "group normalization": (
        [node("GroupNormalization", "x a b", num_groups=2, epsilon=0.1)], {"a": weights(4), "b": weights(4)},
        {"opset": 21}, ["Normalise", "Affine"],
    ),
    "RMS norm": (
        [node("RMSNormalization", "x a", axis=1)], {"a": weights(4, 8, 8)}, {"opset": 23}, ["Normalise", "Affine"],
    ),
    "product of two values": (
        [node("Reshape", "x s", "f"), node("Transpose", "f", "t", perm=[0, 2, 1]), node("MatMul", "f t", "p"),
         node("Softmax", "p", "q", axis=-1), node("MatMul", "q f")],
        {"s": ints(0, 4, -1)}, {}, ["Reshape", "Transpose", "MatMul", "Softmax", "MatMul"],
    ),
    "values at computed positions": (
        [node("Slice", "x b e a", "c"), node("Transpose", "c", "p", perm=[0, 2, 3, 1]),
         node("GridSample", "x p", padding_mode="border", align_corners=1)],
        {"b": ints(0), "e": ints(2), "a": ints(1)}, {"opset": 20}, ["Slice", "Transpose", "GridSample"],
    ),
    "max pool asymmetric": (
        [node("MaxPool", "x", kernel_shape=[3, 3], strides=[2, 2], pads=[0, 0, 1, 1])], {}, {}, ["MaxPool2d"],
    ),
    "max pool before only": (
        [node("MaxPool", "x", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 0, 0])], {}, {}, ["Pad", "MaxPool2d"],
    ),
    "max pool ceil": (
        [node("MaxPool", "x", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)], {}, {}, ["MaxPool2d"],
    ),
    "average pool SAME": (
        [node("AveragePool", "x", kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER")],
        {}, {}, ["AvgPool2d"],
    ),
    "average pool uncounted": (
        [node("AveragePool", "x", kernel_shape=[3, 3], pads=[1, 1, 1, 1])], {}, {}, ["AvgPool2d"],
    ),
    "average pool counted": (
        [node("AveragePool", "x", kernel_shape=[3, 3], pads=[0, 0, 1, 1], count_include_pad=1)],
        {}, {}, ["Pad", "AvgPool2d"],
    ),
    "global pools": (
        [node("GlobalAveragePool", "x", "a"), node("GlobalMaxPool", "x", "b"), node("Add", "a b")],
        {}, {}, ["AdaptiveAvgPool2d", "Reduce", "Add"],
    ),
    "mean, axes as attribute": (
        [node("ReduceMean", "x", axes=[2, 3], keepdims=0)], {}, {}, ["AdaptiveAvgPool2d", "Reshape"],
    ),
    "mean, axes as input": ([node("ReduceMean", "x i")], {"i": ints(2, 3)}, {"opset": 18}, ["AdaptiveAvgPool2d"]),
    "maximum over channels": ([node("ReduceMax", "x", axes=[1])], {}, {}, ["Reduce"]),
    "clip by attributes": ([node("Clip", "x", min=0.0, max=6.0)], {}, {"opset": 7}, ["ReLU6"]),
    "clip by inputs": ([node("Clip", "x a b")], {"a": number(-1), "b": number(1)}, {}, ["Hardtanh"]),
    "clip below": ([node("Clip", "x a")], {"a": number(0)}, {}, ["ReLU"]),
    "clip above": ([node("Clip", "x _ b")], {"b": number(0.5)}, {}, ["Hardtanh"]),
    "prelu": ([node("PRelu", "x w")], {"w": weights(4, 1, 1)}, {}, ["PReLU"]),
    "prelu, one slope": ([node("PRelu", "x w")], {"w": weights(1)}, {}, ["PReLU"]),
    "prelu per value": ([node("PRelu", "x w")], {"w": weights(4, 8, 8)}, {}, ["SpatialPReLU"]),
    "prelu, spelt out": (
        [node("Relu", "x", "a"), node("Neg", "x", "b"), node("Relu", "b", "c"), node("Mul", "w c", "d"),
         node("Add", "a d")],
        {"w": weights(4, 1, 1)}, {}, ["PReLU"],
    ),
    "leaky relu": ([node("LeakyRelu", "x", alpha=0.3)], {}, {}, ["LeakyReLU"]),
    "elu": ([node("Elu", "x", alpha=0.7)], {}, {}, ["ELU"]),
    "hard sigmoid of Keras": ([node("HardSigmoid", "x")], {}, {}, ["Affine", "Hardtanh"]),
    "hard sigmoid": ([node("HardSigmoid", "x", alpha=1 / 6)], {}, {}, ["Hardsigmoid"]),
    "hard swish": ([node("HardSwish", "x")], {}, {"opset": 14}, ["Hardswish"]),
    "hard swish, gated": (
        [node("HardSigmoid", "x", "a", alpha=1 / 6), node("Mul", "x a")], {}, {}, ["Hardswish"],
    ),
    "hard swish, multiplied first": (
        [node("Add", "x t", "a"), node("Clip", "a z s", "b"), node("Mul", "x b", "c"), node("Div", "c s")],
        {"t": floats(3), "z": number(0), "s": number(6)}, {}, ["Hardswish"],
    ),
    "hard swish, divided first": (
        [node("Add", "x t", "a"), node("Clip", "a z s", "b"), node("Div", "b s", "c"), node("Mul", "c x")],
        {"t": floats(3), "z": number(0), "s": number(6)}, {}, ["Hardswish"],
    ),
    "hard sigmoid of a line": (
        [node("Mul", "x s", "a"), node("Add", "a h", "b"), node("Clip", "b z o")],
        {"s": floats(1 / 6), "h": floats(0.5), "z": number(0), "o": number(1)},
        {}, ["Hardsigmoid"],
    ),
    "silu": ([node("Sigmoid", "x", "a"), node("Mul", "x a")], {}, {}, ["SiLU"]),
    "gelu": (
        [node("Div", "x r", "a"), node("Erf", "a", "b"), node("Add", "b o", "c"), node("Mul", "x c", "d"),
         node("Mul", "d h")],
        {"r": floats(2**0.5), "o": floats(1), "h": floats(0.5)}, {}, ["GELU"],
    ),
    "gelu, half first": (
        [node("Mul", "x h", "g"), node("Mul", "x r", "a"), node("Erf", "a", "b"), node("Add", "b o", "c"),
         node("Mul", "g c")],
        {"r": floats(0.5**0.5), "o": floats(1), "h": floats(0.5)}, {}, ["GELU"],
    ),
    "gelu of opset 20": ([node("Gelu", "x", approximate="tanh")], {}, {"opset": 20}, ["GELU"]),
    "softplus of large numbers": (
        [node("Mul", "x c", "a"), node("Softplus", "a")], {"c": floats(50)}, {},
        ["Affine", *["Unary"] * 3, "Affine", "Unary", "ReLU", "Add"],
    ),
    "mish": (
        [node("Mish", "x")], {}, {"opset": 18},
        [*["Unary"] * 3, "Affine", "Unary", "ReLU", "Add", "Tanh", "Multiply"],
    ),
    "softmax over channels": ([node("Softmax", "x", axis=1)], {}, {}, ["Softmax"]),
    "softmax over everything": (
        [node("Softmax", "x", axis=1)], {}, {"opset": 11}, ["Reshape", "Softmax", "Reshape"],
    ),
    "log softmax": ([node("LogSoftmax", "x", axis=1)], {}, {}, ["Softmax", "Unary"]),
    "powers": (
        [node("Pow", "x a", "b"), node("Sqrt", "b", "c"), node("Exp", "c", "d"), node("Neg", "d")],
        {"a": number(2)}, {}, ["Unary"] * 4,
    ),
    "constants on either side": (
        [node("Sub", "c x", "a"), node("Sub", "a c", "b"), node("Div", "b d", "e"), node("Mul", "f e", "g"),
         node("Add", "g m")],
        {"c": weights(4, 1, 1), "d": weights(1, 4, 1, 1) + 3, "f": weights(8, 8), "m": weights(4, 8, 8)},
        {}, ["Affine"] * 5,
    ),
    "two tensors": (
        [node("Relu", "x", "a"), node("Sub", "x a", "b"), node("Mul", "a b", "c"), node("Max", "c x", "d"),
         node("Min", "a d", "e"), node("Sum", "a b e", "f"), node("Add", "f f", "g"), node("Sigmoid", "g", "h"),
         node("Div", "a h")],
        {}, {}, ["ReLU", "Subtract", "Multiply", "Maximum", "Minimum", "Add", "Add", "Add", "Sigmoid", "Divide"],
    ),
    "bounds by Max and Min": (
        [node("Max", "x z", "a"), node("Min", "a s")], {"z": floats(0), "s": floats(1)}, {}, ["ReLU", "Hardtanh"],
    ),
    "upsample 7": ([node("Upsample", "x", mode="linear", scales=[1.0, 1.0, 2.0, 2.0])], {}, {"opset": 7}, ["Resize"]),
    "upsample 9": ([node("Upsample", "x s", mode="nearest")], {"s": floats(1, 1, 2, 2)}, {"opset": 9}, ["Resize"]),
    "resize 10": ([node("Resize", "x s", mode="linear")], {"s": floats(1, 1, 2, 2)}, {"opset": 10}, ["Resize"]),
    "resize to the same": (
        [node("Resize", "x r s", "a"), node("Relu", "a")], {"r": NOTHING, "s": floats(1, 1, 1, 1)}, {}, ["ReLU"],
    ),
    "resize of axes": (
        [node("Resize", "x _ _ s", axes=[2, 3], mode="linear")], {"s": ints(5, 16)}, {"opset": 18}, ["Resize"],
    ),
    "depth to space DCR": ([node("DepthToSpace", "x", blocksize=2)], {}, {}, ["DepthToSpace"]),
    "depth to space CRD": (
        [node("DepthToSpace", "x", blocksize=2, mode="CRD")], {}, {"shape": (1, 12, 4, 4)},
        ["Reshape", "Transpose", "Reshape", "DepthToSpace"],
    ),
    "CRD after a convolution": (
        [node("Conv", "x w b", "a"), node("DepthToSpace", "a", blocksize=2, mode="CRD")],
        {"w": weights(12, 4, 3, 3), "b": weights(12)}, {}, ["Conv2d", "DepthToSpace"],
    ),
    "CRD after a convolution read twice": (
        [node("Conv", "x w", "a"), node("DepthToSpace", "a", "b", blocksize=2, mode="CRD"),
         node("DepthToSpace", "a", "c", blocksize=2), node("Add", "b c")],
        {"w": weights(12, 4, 3, 3)}, {},
        ["Conv2d", "Reshape", "Transpose", "Reshape", "DepthToSpace", "DepthToSpace", "Add"],
    ),
    "space to depth": ([node("SpaceToDepth", "x", blocksize=2)], {}, {}, ["SpaceToDepth"]),
    "split": (
        [node("Split", "x s", "a b", axis=1), node("Concat", "b a", axis=1)], {"s": ints(1, 3)}, {},
        ["Slice", "Slice", "Concat"],
    ),
    "split by attribute": (
        [node("Split", "x", "a b", axis=1, split=[3, 1]), node("Concat", "b a", axis=1)], {}, {"opset": 11},
        ["Slice", "Slice", "Concat"],
    ),
    "split equally": (
        [node("Split", "x", "a b", axis=-2, num_outputs=2), node("Add", "a b")], {}, {"opset": 18},
        ["Slice", "Slice", "Add"],
    ),
    "slice to the end": (
        [node("Slice", "x a b c")], {"a": ints(1), "b": ints(2**63 - 1), "c": ints(1)}, {}, ["Slice"],
    ),
    "slice by attributes": (
        [node("Slice", "x", starts=[1, -6], ends=[3, -1], axes=[1, 2])], {}, {"opset": 9}, ["Slice", "Slice"],
    ),
    "slice in steps": (
        [node("Slice", "x a b c d")], {"a": ints(0), "b": ints(8), "c": ints(3), "d": ints(2)}, {}, ["Slice"],
    ),
    "gather of one": ([node("Gather", "x i", axis=1)], {"i": np.asarray(2)}, {}, ["Slice", "Reshape"]),
    "gather of a run": ([node("Gather", "x i", axis=1)], {"i": ints(1, 2)}, {}, ["Slice"]),
    "pad by attribute": ([node("Pad", "x", pads=[0, 0, 1, 2, 0, 0, 3, 0], value=2.0)], {}, {"opset": 10}, ["Pad"]),
    "pad by input": ([node("Pad", "x p v")], {"p": ints(0, 1, 0, 1, 0, 2, 0, 0), "v": number(3)}, {}, ["Pad"]),
    "pad of axes": ([node("Pad", "x p _ a")], {"p": ints(1, 2, 0, 1), "a": ints(3, 2)}, {"opset": 18}, ["Pad"]),
    "pad and crop": ([node("Pad", "x p")], {"p": ints(0, 0, -1, 1, 0, 0, 0, 0)}, {}, ["Pad", "Pad"]),
    "pad by edges": (
        [node("Pad", "x p", mode="edge")], {"p": ints(0, 0, 2, 0, 0, 0, 1, 0)}, {},
        ["Slice", "Slice", "Slice", "Concat"],
    ),
    "pad by reflection": (
        [node("Pad", "x p", mode="reflect")], {"p": ints(0, 0, 0, 2, 0, 0, 0, 1)}, {},
        ["Slice", "Slice", "Slice", "Concat"],
    ),
    "expand": (
        [node("GlobalAveragePool", "x", "a"), node("Expand", "a s")], {"s": ints(1, 4, 8, 8)}, {},
        ["AdaptiveAvgPool2d", "Resize"],
    ),
    "squeeze and excite": (
        [node("GlobalAveragePool", "x", "a"), node("Flatten", "a", "b"), node("Gemm", "b w1 b1", "c", transB=1),
         node("Relu", "c", "d"), node("Gemm", "d w2 b2", "e", alpha=0.5, beta=2.0), node("Sigmoid", "e", "f"),
         node("Unsqueeze", "f i", "g"), node("Mul", "x g")],
        {"w1": weights(2, 4), "b1": weights(2), "w2": weights(2, 4), "b2": weights(4), "i": ints(2, 3)}, {},
        ["AdaptiveAvgPool2d", "Reshape", "Linear", "ReLU", "Linear", "Sigmoid", "Reshape", "Multiply"],
    ),
    "shapes worked out": (
        [node("Relu", "x", "a"), node("Shape", "a", "s"), node("Gather", "s i", "h"), node("Mul", "h t", "hh"),
         node("Concat", "n hh hh", "z", axis=0), node("Resize", "x r r z", mode="nearest")],
        {"i": ints(2), "t": ints(2), "n": ints(1, 4), "r": NOTHING}, {}, ["Resize"],
    ),
    "channel shuffle": (
        [node("Reshape", "x s", "a"), node("Transpose", "a", "b", perm=[0, 2, 1, 3, 4]), node("Reshape", "b t")],
        {"s": ints(0, 2, 2, 8, 8), "t": ints(1, -1, 8, 8)}, {}, ["Reshape", "Transpose", "Reshape"],
    ),
    "sizes halved": (
        [node("Shape", "x", "s"), node("Slice", "s i j", "h"), node("Div", "h t", "hh"), node("Sub", "hh o", "hhh"),
         node("Concat", "n hhh", "z", axis=0), node("Resize", "x r r z", mode="nearest", nearest_mode="floor",
                                                    coordinate_transformation_mode="asymmetric")],
        {"i": ints(2), "j": ints(4), "t": ints(3), "o": ints(-3), "n": ints(1, 4), "r": NOTHING}, {}, ["Resize"],
    ),
    "transpose that stays": (
        [node("Transpose", "x", "a", perm=[0, 2, 3, 1]), node("Conv", "a w")], {"w": weights(5, 8, 3, 3)}, {},
        ["Transpose", "Conv2d"],
    ),
    "orders that differ": (
        [node("Transpose", "x", "a", perm=[0, 2, 3, 1]), node("Relu", "x", "b"), node("Sub", "a b")], {},
        {"shape": (1, 6, 6, 6)}, ["ReLU", "Transpose", "Subtract"],
    ),
    "matrix product": (
        [node("Transpose", "x", "a", perm=[0, 2, 3, 1]), node("MatMul", "a w", "b"),
         node("Transpose", "b", "y", perm=[0, 3, 1, 2])],
        {"w": weights(4, 5)}, {}, ["Conv2d"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_operator_equals_onnxruntime(name: str, tmp_path: Path):
    nodes, constants, settings, expected = CASES[name]
    path = write(tmp_path / "operator.onnx", nodes, constants, **settings)
    graph = from_file(path)
    assert kinds(graph) == expected
    assert difference(path, graph) < 3e-5


MODES = [
    *((f"linear {mode}", {"mode": "linear", "coordinate_transformation_mode": mode})
      for mode in ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric")),
    *((f"nearest {mode} {rounding}",
       {"mode": "nearest", "coordinate_transformation_mode": mode, "nearest_mode": rounding})
      for mode, rounding in (("asymmetric", "floor"), ("half_pixel", "round_prefer_ceil"),
                             ("tf_half_pixel_for_nn", "floor"), ("align_corners", "round_prefer_ceil"))),
]  # fmt: skip


@pytest.mark.parametrize("factor", ["double", "odd"])
@pytest.mark.parametrize(("name", "settings"), MODES, ids=[name for name, _ in MODES])
def test_resize_reads_where_onnxruntime_does(name: str, settings: dict[str, Any], factor: str, tmp_path: Path):
    inputs, constants = ("x r s", DOUBLE) if factor == "double" else ("x r e s", SIZES)
    opset = 11 if "tf_half" in name else 13
    path = write(tmp_path / "resize.onnx", [node("Resize", inputs, **settings)], constants, opset=opset)
    assert kinds(from_file(path)) == ["Resize"]
    assert difference(path) < 3e-5


def test_scale_that_does_not_reach_the_last_pixel(tmp_path: Path):
    """Half of 33 pixels is 16: the last of them takes no part."""
    resize = node("Resize", "x r s", mode="linear", coordinate_transformation_mode="pytorch_half_pixel")
    path = write(tmp_path / "half.onnx", [resize], {**DOUBLE, "s": floats(1, 1, 0.5, 0.5)}, (1, 3, 33, 33))
    assert kinds(from_file(path)) == ["Pad", "Resize"]
    assert difference(path) < 3e-5


REFUSED: dict[str, tuple[list[Any], dict[str, np.ndarray], str]] = {
    "no such operator": ([node("Det", "x", node_name="d1")], {}, "Det 'd1'"),
    "erf alone": ([node("Erf", "x", node_name="e1")], {}, "Erf"),
    "matrices that are broadcast": (
        [node("ReduceMean", "x", "m", axes=[1], keepdims=1), node("MatMul", "x m", node_name="m1")],
        {},
        "MatMul 'm1'.*broadcast",
    ),
    "another domain": (
        [node("NhwcConv", "x w", node_name="f1", domain="com.example")], W43, "com.example.NhwcConv 'f1'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_vocabulary_lacks_is_named(name: str, tmp_path: Path):
    nodes, constants, message = REFUSED[name]
    with pytest.raises(UnknownOperator, match=message):
        from_file(write(tmp_path / "refused.onnx", nodes, constants))


def test_a_convolution_that_does_not_fit_is_named(tmp_path: Path):
    path = write(tmp_path / "misfit.onnx", [node("Conv", "x w", node_name="c1")], {"w": weights(4, 3, 3, 3)})
    with pytest.raises(ModelError, match="Conv 'c1'"):
        from_file(path)
