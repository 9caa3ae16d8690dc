"""Files as tools other than an exporter leave them: quantised, optimised, in halves, in parts, with functions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx_files import difference, kinds, node, weights, write

import slimseg
from slimseg.errors import ModelError, UnknownOperator
from slimseg.frontends.onnx import from_file
from slimseg.graph.graph import Graph

MICROSOFT = {"domain": "com.microsoft"}


def byte(value: int) -> np.ndarray:
    return np.asarray(value, np.uint8)


def number(value: float) -> np.ndarray:
    return np.asarray(value, np.float32)


def small(*shape: int) -> np.ndarray:
    return np.random.randint(-9, 9, shape).astype(np.int8)


def opened(path: Path, opset: int = 17) -> Graph:
    """The Graph of a file that also uses onnxruntime's own operators."""
    model = onnx.load(path)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    onnx.save(model, path)
    return from_file(path)


IN_AND_OUT = {"s": number(0.05), "z": byte(128), "r": number(0.1), "y0": byte(128)}
INTEGERS: dict[str, tuple[list[Any], dict[str, np.ndarray]]] = {
    "QLinearConv": (
        [node("QuantizeLinear", "x s z", "q"), node("QLinearConv", "q s z w ws wz r y0 b", "p", pads=[1, 1, 1, 1]),
         node("DequantizeLinear", "p r y0")],
        {**IN_AND_OUT, "w": small(3, 4, 3, 3), "ws": np.asarray([0.02, 0.01, 0.03], np.float32),
         "wz": np.zeros(3, np.int8), "b": np.asarray([10, -20, 5], np.int32)},
    ),
    "dynamic": (
        [node("DynamicQuantizeLinear", "x", "q s z"), node("ConvInteger", "q w z wz", "i"),
         node("Cast", "i", "f", to=TensorProto.FLOAT), node("Mul", "s ws", "t"), node("Mul", "f t")],
        {"w": small(3, 4, 1, 1), "wz": np.asarray(0, np.int8), "ws": number(0.02)},
    ),
    "dynamic product": (
        [node("DynamicQuantizeLinear", "x", "q s z"), node("MatMulInteger", "q w z wz", "i"),
         node("Cast", "i", "f", to=TensorProto.FLOAT), node("Mul", "s ws", "t"), node("Mul", "f t")],
        {"w": small(8, 5), "wz": np.asarray(1, np.int8), "ws": number(0.02)},
    ),
    "QLinearAdd and others": (
        [node("QuantizeLinear", "x s z", "q"), node("QLinearAdd", "q s z q s z r y0", "a", **MICROSOFT),
         node("QLinearLeakyRelu", "a r y0 r y0", "l", alpha=0.1, **MICROSOFT),
         node("QLinearConcat", "r y0 l r y0 a r y0", "c", axis=1, **MICROSOFT),
         node("QLinearGlobalAveragePool", "c r y0 r y0", "g", channels_last=0, **MICROSOFT),
         node("QLinearMul", "c r y0 g r y0 r y0", "m", **MICROSOFT), node("DequantizeLinear", "m r y0")],
        IN_AND_OUT,
    ),
}  # fmt: skip
OPTIMISED: dict[str, tuple[list[Any], dict[str, np.ndarray]]] = {
    "FusedConv": (
        [node("FusedConv", "x w b x", activation="LeakyRelu", activation_params=[0.2], pads=[1] * 4, **MICROSOFT)],
        {"w": weights(4, 4, 3, 3), "b": weights(4)},
    ),
    "FusedMatMul": ([node("FusedMatMul", "x x", transB=1, alpha=0.5, **MICROSOFT)], {}),
    "activations": (
        [node("Gelu", "x", "a", **MICROSOFT), node("BiasGelu", "a b", "c", **MICROSOFT),
         node("FastGelu", "c b", "d", **MICROSOFT), node("QuickGelu", "d", alpha=1.7, **MICROSOFT)],
        {"b": weights(8)},
    ),
    "SkipLayerNormalization": (
        [node("Reshape", "x s", "t"), node("Relu", "t", "r"),
         node("SkipLayerNormalization", "t r g b", "n _1 _2 u", **MICROSOFT), node("Add", "n u")],
        {"s": np.asarray([1, 32, 8]), "g": weights(8), "b": weights(8)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", INTEGERS)
def test_an_integer_operator_is_opened_in_float(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / "integers.onnx", *INTEGERS[name], opset=17)
    graph = opened(path)
    assert graph.is_quantised
    assert any("quantised" in note for note in graph.notes)
    assert difference(path, graph) < 0.35  # three steps of rounding


@pytest.mark.parametrize("name", OPTIMISED)
def test_what_onnxruntime_fuses_is_taken_apart(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / "fused.onnx", *OPTIMISED[name], opset=17)
    assert difference(path, opened(path)) < 3e-5


def test_a_file_for_one_processor_is_refused(tmp_path: Path) -> None:
    path = write(
        tmp_path / "blocks.onnx", [node("Conv", "x w", domain="com.microsoft.nchwc")], {"w": weights(4, 4, 1, 1)}
    )
    with pytest.raises(UnknownOperator, match="optimised by onnxruntime for one processor"):
        from_file(path)


def test_weights_of_4_bits(tmp_path: Path) -> None:
    whole = np.random.randint(-8, 8, (3, 4, 1, 1))
    path = write(
        tmp_path / "int4.onnx",
        [node("DequantizeLinear", "w s", "f"), node("Conv", "x f")],
        {"s": number(0.1)},
        opset=21,
    )
    model = onnx.load(path)
    model.ir_version = 10
    model.graph.initializer.append(helper.make_tensor("w", TensorProto.INT4, whole.shape, whole.reshape(-1).tolist()))
    onnx.save(model, path)
    assert difference(path, from_file(path)) < 1e-5


def test_half_precision_with_casts_at_the_ends(tmp_path: Path) -> None:
    nodes = [
        *(node("Cast", "x", "h", to=TensorProto.FLOAT16), node("Conv", "h w", "c"), node("Clip", "c l", "r")),
        node("Cast", "r", to=TensorProto.FLOAT),
    ]
    halves = {"w": weights(3, 4, 3, 3).astype(np.float16), "l": np.asarray(0, np.float16)}
    path = write(tmp_path / "half.onnx", nodes, halves)
    graph = from_file(path)
    assert (kinds(graph), graph.weights) == (["Conv2d", "ReLU"], "float16")
    assert difference(path, graph) < 0.05


def test_values_in_a_folder_beside_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "model.onnx", [node("Conv", "x w")], {"w": weights(3, 4, 3, 3)})
    model = onnx.load(path)
    (tmp_path / "weights").mkdir()
    (values,) = model.graph.initializer
    (tmp_path / "weights" / "w.bin").write_bytes(values.raw_data)
    values.ClearField("raw_data")
    values.data_location = TensorProto.EXTERNAL
    location = values.external_data.add(key="location", value="weights/w.bin")
    onnx.save(model, path)
    assert difference(path, from_file(path)) < 1e-5
    (tmp_path / "elsewhere").symlink_to(tmp_path / "weights")
    for outside in ("../w.bin", "weights/../../w.bin", "/etc/passwd", "elsewhere/w.bin", "weights//w.bin", "."):
        location.value = outside
        path.write_bytes(model.SerializeToString())
        with pytest.raises(ModelError, match="not a file beside it"):
            from_file(path)


def test_channels_that_are_open_are_those_of_the_first_convolution(tmp_path: Path) -> None:
    path = write(tmp_path / "open.onnx", [node("Conv", "x w")], {"w": weights(3, 4, 3, 3)}, shape=("n", "c", "h", "w"))
    with pytest.raises(ModelError, match="give `input_size` HEIGHTxWIDTH"):
        from_file(path)
    assert slimseg.load(path, (16, 24)).input_shape == (1, 4, 16, 24)


def test_functions_of_the_file_are_called_with_their_attributes(tmp_path: Path) -> None:
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("my", 1)]
    steps = [helper.make_node("LeakyRelu", ["a"], ["t"]), helper.make_node("Elu", ["t"], ["b"])]
    steps[0].attribute.append(helper.make_attribute_ref("alpha", onnx.AttributeProto.FLOAT))
    inner = helper.make_function("my", "Activation", ["a"], ["b"], steps, opsets, ["alpha"])
    body = [
        helper.make_node("Conv", ["x", "w"], ["t"]),
        helper.make_node("Activation", ["t"], ["y"], domain="my", alpha=0.3),
    ]
    block = helper.make_function("my", "Block", ["x", "w"], ["y"], body, opsets)
    nodes = [node("Block", "x w", "t", domain="my", node_name="stem"), node("Block", "t v", domain="my")]
    path = write(tmp_path / "functions.onnx", nodes, {"w": weights(4, 4, 3, 3), "v": weights(3, 4, 1, 1)}, opset=17)
    model = onnx.load(path)
    model.opset_import.append(opsets[1])
    model.functions.extend([inner, block])
    onnx.save(model, path)
    graph = from_file(path)
    assert kinds(graph) == ["Conv2d", "LeakyReLU", "ELU"] * 2
    assert difference(path, graph) < 1e-4
    endless = helper.make_function("my", "Activation", ["a"], ["b"], [node("Block", "a a", "b", domain="my")], opsets)
    del model.functions[:]
    model.functions.extend([endless, block])
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="without an end"):
        from_file(path)
