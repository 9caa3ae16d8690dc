"""int8 as QDQ: the grids of the int8 `.tflite`, integer kernels, and nearly its masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto, numpy_helper
from torch import Tensor, nn

from slimseg import load
from slimseg.graph import edit, ops
from slimseg.graph.graph import Graph
from slimseg.runtimes import host, registry
from slimseg.runtimes.onnxruntime import file, kernels, profiler, writer
from slimseg.runtimes.onnxruntime.quantising import grids, qdq
from slimseg.runtimes.onnxruntime.runtime import ONNXRUNTIME
from slimseg.runtimes.onnxruntime.session import Session

SIZE = (64, 96)
IMAGES = [np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), np.uint8) for seed in range(2)]


@pytest.fixture(scope="module")
def files(small: Graph, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The deployed int8 files of the default runtime and of this one; both take bytes."""
    folder = tmp_path_factory.mktemp("int8")
    paths = folder / "small.tflite", folder / "small.onnx"
    for its, path in zip((registry.DEFAULT, ONNXRUNTIME), paths, strict=True):
        its.deploy(small, path, "int8", IMAGES)
    return paths


def masks(path: Path) -> np.ndarray:
    its = registry.of(path)
    app = host.App(its.read(path))
    return np.stack([app.mask(its.predict(path, app.prepare(image)[None])[0], SIZE) for image in IMAGES])


def test_masks_are_those_of_the_tflite(files: tuple[Path, Path], written: Path):
    theirs, ours, in_float = map(masks, (*files, written))
    assert (theirs == ours).mean() > 0.99
    assert (theirs == ours).mean() > (theirs == in_float).mean()


def test_every_grid_is_the_tflites(files: tuple[Path, Path]):
    model = onnx.load(files[1])
    onnx.checker.check_model(model, full_check=True)
    names = {name for node in model.graph.node for name in node.output} | {model.graph.input[0].name}
    found = grids.read(files[0], names)
    rounded = {node.output[0]: node for node in model.graph.node if node.op_type == "QuantizeLinear"}
    stored = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    seen = 0
    for name, grid in found.written.items():
        node = rounded.get(f"{name}_quantised")
        if grid is not None and node is not None:
            assert (float(stored[node.input[1]]), int(stored[node.input[2]])) == (grid.scale, grid.zero_point)
            seen += 1
    assert seen > 30
    weight = stored["stem_conv_weight_integers"]
    assert weight.dtype == np.int8
    np.testing.assert_array_equal(stored["stem_conv_weight_scale"], found.constants["stem_activation"][0].scales)
    assert stored["stem_conv_bias_integers"].dtype == np.int32


def test_convolutions_and_sums_run_on_integers(files: tuple[Path, Path], tmp_path: Path):
    traced = Session(files[1], trace=str(tmp_path / "run"))
    traced.set_random()
    traced.invoke()
    ran, times = profiler.read_trace(traced.end_profile())
    assert times.shape == (1, len(ran))
    operators = file.read(files[1]).operators
    convolutions = [each for each in operators if each.op == "Conv"]
    kinds = [kernel.op for kernel in ran]
    assert kinds.count("QLinearConv") == len(convolutions) > 30
    assert kinds.count("QLinearAdd") == sum(each.op == "Add" for each in operators) > 5
    assert "Conv" not in kinds
    named = zip(ran, kernels.parts(operators, ran), strict=True)
    assert [part[0] for kernel, part in named if kernel.op == "QLinearConv"] == convolutions


def test_a_file_of_bytes(files: tuple[Path, Path], small: Graph):
    found = file.read(files[1])
    assert found.is_int8
    assert ONNXRUNTIME.precision(files[1]) == "int8"
    assert found.weights == "int8"
    assert found.inputs[0].dtype == found.outputs[0].dtype == "uint8"
    assert found.outputs[0].name == small.output.name
    assert found.outputs[0].scale > 0
    app = host.App(found)
    np.testing.assert_array_equal(app.prepare(IMAGES[0]), IMAGES[0])


def test_it_opens_as_the_network_that_was_quantised(files: tuple[Path, Path], small: Graph):
    read = load(files[1], verify=False)
    assert [node.name for node in read.layers()] == [node.name for node in load_float(small, files[1]).layers()]


def load_float(graph: Graph, beside: Path) -> Graph:
    path = beside.with_name("float.onnx")
    writer.write(graph, path)
    return load(path, verify=False)


class Island(nn.Module):
    """GELU stays in float32; the leaky ReLU has another grid than the convolution; the channels are shuffled."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.gelu, self.two = nn.Conv2d(3, 8, 3, padding=1), nn.GELU(), nn.Conv2d(8, 8, 1)
        self.leaky, self.cat, self.pad = nn.LeakyReLU(0.1), ops.Concat(), ops.Pad((0, 1, 1, 0))
        self.pool, self.scale = nn.MaxPool2d(2), ops.Affine(torch.rand(16, 1, 1) + 0.5)
        self.up, self.last = nn.ConvTranspose2d(16, 4, 2, 2), nn.ReLU()

    def forward(self, image: Tensor) -> Tensor:
        one = self.one(image)
        both = self.cat(self.leaky(self.two(self.gelu(one))), one)
        return self.last(self.up(self.scale(self.pool(self.pad(both)))))


@pytest.fixture(scope="module")
def island(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, ModelProto]:
    torch.manual_seed(0)
    graph = edit.trace(Island().eval(), (1, 3, 15, 17))
    samples = [np.random.default_rng(seed).standard_normal((1, 15, 17, 3), np.float32) for seed in range(3)]
    folder = tmp_path_factory.mktemp("island")
    paths = folder / "island.tflite", folder / "island.onnx"
    for its, path in zip((registry.DEFAULT, ONNXRUNTIME), paths, strict=True):
        its.write_int8(graph, path, samples)
    return (*paths, onnx.load(paths[1]))


def test_values_are_nearly_those_of_the_tflite(island: tuple[Path, Path, ModelProto]):
    theirs, ours, _ = island
    image = np.random.default_rng(9).standard_normal((1, 15, 17, 3), np.float32)
    expected, got = (registry.of(path).predict(path, image) for path in (theirs, ours))
    assert got.dtype == np.float32
    assert got.shape == expected.shape
    step = grids.read(theirs, {"last"}).written["last"]
    assert step is not None
    assert np.abs(got - expected).max() <= 3.01 * step.scale
    assert (np.abs(got - expected) < 0.5 * step.scale).mean() > 0.9


def test_what_the_tflite_leaves_in_float_stays_in_float(island: tuple[Path, Path, ModelProto]):
    makers = {node.output[0]: node for node in island[2].graph.node}
    (erf,) = [node for node in island[2].graph.node if node.op_type == "Erf"]
    assert makers[erf.input[0]].op_type == "Div", "nothing is rounded within"
    (two,) = [node for node in island[2].graph.node if node.name == "two"]
    assert makers[two.input[0]].op_type == "DequantizeLinear"
    (up,) = [node for node in island[2].graph.node if node.op_type == "ConvTranspose"]
    assert all(makers[name].op_type == "DequantizeLinear" for name in up.input)


def test_grids_of_another_network_do_not_fit(files: tuple[Path, Path], island: tuple[Path, Path, ModelProto], small):
    assert qdq.fits(writer.serialise(small), files[0])
    assert not qdq.fits(writer.serialise(small), island[0])
