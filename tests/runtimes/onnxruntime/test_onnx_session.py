"""Files of slimseg and of users on ONNX Runtime: values, layers' values, profiles, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from slimseg.errors import DataError, ModelError, RuntimeFailure
from slimseg.graph.costs import total
from slimseg.graph.graph import Graph
from slimseg.results import Profile
from slimseg.runtimes import registry
from slimseg.runtimes.onnxruntime import costs, file, kernels, profiler, session
from slimseg.runtimes.onnxruntime.kernels import Kernel
from slimseg.runtimes.onnxruntime.runtime import ONNXRUNTIME

SIZE = (64, 96)


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((*SIZE, 3), np.float32)


@pytest.fixture(scope="module")
def told(written: Path) -> Profile:
    return profiler.profile(written, runs=3)


def values_of(graph: Graph, image: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return graph(torch.from_numpy(image.transpose(2, 0, 1)[None].copy())).numpy().transpose(0, 2, 3, 1)


def test_outputs_are_pytorchs(small: Graph, written: Path, image: np.ndarray):
    got = session.predict(written, np.stack([image, -image]), timeout_s=60)
    assert got.shape == (2, *SIZE, 5)
    np.testing.assert_allclose(got[:1], values_of(small, image), atol=1e-4)
    np.testing.assert_allclose(got[1:], values_of(small, -image), atol=1e-4)


def test_values_of_layers(small: Graph, written: Path, image: np.ndarray):
    names = ONNXRUNTIME.layer_names(written)
    assert set(names) <= {node.name for node in small.layers()}
    found = ONNXRUNTIME.layer_values(written, image, ["stem_activation", small.output.name])
    assert found["stem_activation"].shape == (1, 32, 48, 8)
    assert found["stem_activation"].min() == 0
    np.testing.assert_allclose(found[small.output.name], values_of(small, image), atol=1e-4)
    with pytest.raises(ModelError, match="has no value 'nothing'"):
        ONNXRUNTIME.layer_values(written, image, ["nothing"])


def test_what_a_file_says(small: Graph, written: Path):
    found = file.read(written)
    assert found.inputs[0].shape == (1, *SIZE, 3)
    assert found.outputs[0].shape == (1, *SIZE, 5)
    assert found.description == small.description
    assert (found.weights, found.is_int8) == ("float32", False)
    covers = {each.name: each.covers for each in found.operators}
    assert covers["stem_conv"] == ("stem_conv", "stem_norm")


def test_a_profile_names_the_convolutions_and_what_is_fused_with_them(small: Graph, told: Profile):
    covered = [name for layer in told.layers for name in layer.covers]
    assert sorted(covered) == sorted(node.name for node in small.layers()), "every layer once"
    (stem,) = [layer for layer in told.layers if layer.name == "stem_conv"]
    assert stem.covers == ("stem_conv", "stem_norm", "stem_activation")
    assert stem.output_shape == (1, 32, 48, 8)
    assert stem.macs == 8 * 3 * 9 * 32 * 48
    assert told.latency_ms > 0
    assert sum(layer.latency_ms for layer in told.layers) <= 1.001 * told.latency_ms


def test_costs_are_the_graphs(small: Graph, told: Profile):
    assert told.macs == total(small).macs


def operator(op: str, name: str, *inputs: str, covers: tuple[str, ...] = ()) -> file.Operator:
    return file.Operator(op, name, inputs, (), name, covers, name)


def test_kernels_are_joined_by_their_names():
    operators = (
        operator("Conv", "conv", "x"),
        operator("Relu", "relu", "conv"),
        operator("Conv", "conv_1", "relu"),
        operator("Add", "sum", "conv_1", "relu"),
        operator("Sigmoid", "gate", "sum"),
        operator("Mul", "swish", "sum", "gate"),
    )
    names = ["ReorderInput", "relu_nchwc", "fused conv_1", "swish_token_7"]
    found = kernels.parts(operators, [Kernel(name, "", (), ()) for name in names])
    assert [[each.name for each in part] for part in found] == [
        [], ["conv", "relu"], ["conv_1", "sum"], ["gate", "swish"]
    ]  # fmt: skip


def test_costs_of_a_transposed_convolution_and_of_products():
    weight = file.Constant((4, 6, 2, 2), TensorProto.FLOAT)
    transposed = replace(operator("ConvTranspose", "up", "x"), constants=(weight,))
    assert costs.cost(transposed, [(1, 4, 5, 7)], (1, 6, 10, 14)) == costs.Cost(96, 96 * 35, 4 * (140 + 840 + 96))
    product = operator("MatMul", "product", "a", "b")
    assert costs.cost(product, [(1, 8, 16), (1, 16, 3)], (1, 8, 3)).macs == 8 * 16 * 3


def users_file(path: Path, shape: list[int | str], **more: object) -> Path:
    """A network as users bring it: a ReLU and nothing that slimseg wrote."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("in", "out")]
    graph = helper.make_graph([helper.make_node("Relu", ["in"], ["out"])], "g", ends[:1], ends[1:], **more)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.mark.parametrize("shape", [[1, 3, 8, 10], [1, 8, 10, 3], ["n", 3, 8, 10]])
def test_a_users_file_runs_in_either_layout(tmp_path: Path, shape: list[int | str]):
    path = users_file(tmp_path / "own.onnx", shape)
    assert file.read(path).inputs[0].shape == (1, 8, 10, 3)
    given = np.random.default_rng(0).standard_normal((1, 8, 10, 3), np.float32)
    np.testing.assert_array_equal(session.predict(path, given), np.maximum(given, 0))


def test_a_users_file_is_run_as_it_is_only_where_the_runtime_is_named(tmp_path: Path):
    path = tmp_path / "own.onnx"
    assert registry.of(path) is ONNXRUNTIME
    assert not registry.runs_unchanged(path)
    assert not registry.runs_unchanged(path, "litert")
    assert registry.runs_unchanged(path, "onnxruntime")
    assert registry.runs_unchanged(tmp_path / "own.tflite")
    assert not registry.runs_unchanged(tmp_path / "own.tflite", "onnxruntime")


def test_an_open_size_is_not_timed(tmp_path: Path):
    path = users_file(tmp_path / "own.onnx", [1, 3, "height", "width"])
    with pytest.raises(ModelError, match="does not state the size of its input"):
        profiler.profile(path)


def test_damaged_files_and_wrong_inputs_are_refused(written: Path, tmp_path: Path):
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(written.read_bytes()[:1000])
    with pytest.raises(ModelError, match="damaged"):
        file.read(damaged)
    with pytest.raises(DataError, match="needs one or more inputs of shape"):
        session.predict(written, np.zeros((1, 8, 8, 3), np.float32))
    unknown = onnx.load(written)
    unknown.graph.node[0].op_type = "Nonsense"
    onnx.save(unknown, damaged)
    with pytest.raises(RuntimeFailure, match="native runtime refused"):
        session.predict(damaged, np.zeros((1, *SIZE, 3), np.float32))


def test_weights_in_other_files_are_refused(written: Path, tmp_path: Path):
    path = tmp_path / "external.onnx"
    onnx.save_model(onnx.load(written), path, save_as_external_data=True, size_threshold=0, location="weights")
    with pytest.raises(ModelError, match="keeps its weights in other files"):
        file.read(path)
