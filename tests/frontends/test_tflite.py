"""`.tflite` in: what real converters wrote opens equal, trains and is written back equal; damage is one sentence."""

from __future__ import annotations

import itertools
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from ai_edge_litert import schema_py_generated as tflite
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

import slimseg
from slimseg.errors import ModelError, UnknownOperator
from slimseg.frontends.tflite import constants
from slimseg.graph import edit, ops
from slimseg.graph.description import Description
from slimseg.graph.graph import Graph
from slimseg.runtimes.litert import session
from slimseg.runtimes.litert.writing import writer
from slimseg.tflite import file
from slimseg.tflite.schema import ModelBuilder

DATA = Path(__file__).resolve().parents[1] / "data"
FLOATS = ["deeplab_float", "gated_float", "gated_float16", "old_float", "squeeze_float"]


def outputs(graph: Graph, images: np.ndarray) -> np.ndarray:
    """The graph's output on (N, H, W, C) images, laid out as a file has it."""
    with torch.no_grad():
        result = torch.cat([graph(torch.from_numpy(image[None]).permute(0, 3, 1, 2)) for image in images])
    return (result.permute(0, 2, 3, 1) if result.ndim == 4 else result).numpy()


def images_for(graph: Graph, brightest: float = 1.0, count: int = 2) -> np.ndarray:
    _, channels, height, width = graph.input_shape
    return np.random.default_rng(1).uniform(0, brightest, (count, height, width, channels)).astype(np.float32)


def largest_difference(a: np.ndarray, b: np.ndarray) -> float:
    """Absolute on probabilities, relative on what is larger."""
    return float(np.abs(a - b).max() / max(1.0, np.abs(a).max()))


def brightest(name: str) -> float:
    return 255.0 if name.startswith("deeplab") else 1.0


@pytest.mark.parametrize("name", FLOATS)
def test_third_party_float_files_open_equal_and_are_written_back_equal(name, tmp_path):
    path = DATA / f"{name}.tflite"
    graph = slimseg.load(path)
    images = images_for(graph, brightest(name))
    expected = session.predict(path, images)
    assert largest_difference(expected, outputs(graph, images)) < 1e-4
    writer.write(graph, tmp_path / "back.tflite")
    back = session.predict(tmp_path / "back.tflite", images)
    assert back.shape == expected.shape
    assert largest_difference(expected, back) < 1e-4
    assert graph.source == path


@pytest.mark.parametrize("name", ["deeplab_float", "gated_float", "old_float"])
def test_opened_networks_train(name):
    graph = slimseg.load(DATA / f"{name}.tflite")
    graph(torch.rand(graph.input_shape)).square().sum().backward()
    missing = [key for key, value in graph.module.named_parameters() if value.grad is None]
    assert missing == []
    assert len(list(graph.module.parameters())) > 6


def test_no_transposes_are_left_behind():
    for name in FLOATS:
        graph = slimseg.load(DATA / f"{name}.tflite")
        assert not [node.name for node in graph.layers() if graph.layer_as(node, ops.Transpose)], name


def test_space_to_batch_is_the_dilation_that_it_spells():
    graph = slimseg.load(DATA / "old_float.tflite")
    dilations = {layer.dilation for node in graph.layers() if (layer := graph.layer_as(node, nn.Conv2d))}
    assert {(2, 2), (4, 4)} <= dilations


def test_repeated_pixels_are_a_nearest_resize():
    graph = slimseg.load(DATA / "squeeze_float.tflite")
    assert [layer.size for node in graph.layers() if (layer := graph.layer_as(node, ops.Resize))] == [(8, 10)]


@pytest.mark.parametrize(
    ("name", "tolerance"), [("deeplab_int8", 0.05), ("squeeze_int8", 0.02), ("squeeze_dynamic", 1e-3)]
)
def test_quantised_files_open_dequantised_and_say_so(name, tolerance):
    path = DATA / f"{name}.tflite"
    graph = slimseg.load(path)
    images = images_for(graph, brightest(name))
    assert largest_difference(session.predict(path, images), outputs(graph, images)) < tolerance
    assert "quantised" in graph.notes[0]


def test_an_image_of_bytes_says_its_preprocessing():
    image = file.read(DATA / "deeplab_int8.tflite").inputs[0]
    assert image.dtype == "uint8"
    preprocessing = slimseg.load(DATA / "deeplab_int8.tflite").description.preprocessing
    assert preprocessing.std == pytest.approx((1 / image.scale,) * 3)
    assert preprocessing.mean == (image.zero_point,) * 3


def test_channels_first_files_lose_their_transposes():
    path = DATA / "planar_float.tflite"
    graph = slimseg.load(path)
    assert graph.input_shape == (1, 3, 32, 40)
    assert not [node for node in graph.layers() if graph.layer_as(node, ops.Transpose)]
    assert "channels first" in graph.notes[0]
    image = np.random.default_rng(0).random((1, 3, 32, 40)).astype(np.float32)
    with torch.no_grad():
        got = graph(torch.from_numpy(image)).numpy()
    assert got.shape == (1, 4, 32, 40)
    expected = session.Session(path).run_raw(image)
    assert largest_difference(expected.reshape(got.shape), got) < 1e-4


def test_what_we_write_opens_as_it_was(tmp_path, shapes_graph):
    writer.write(shapes_graph, tmp_path / "m.tflite")
    graph = slimseg.load(tmp_path / "m.tflite")
    assert graph.description == shapes_graph.description
    image = torch.rand(graph.input_shape)
    with torch.no_grad():
        torch.testing.assert_close(graph(image), shapes_graph(image), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["prisma-net", "slim_reshape"])
def test_portrait_networks_open_equal_on_photographs(shared, tmp_path, name):
    path = shared / "models" / f"{name}.tflite"
    graph = slimseg.load(path)
    photographs = itertools.islice(sorted((shared / "portraits/val/images").iterdir()), 2)
    pixels = [Image.open(each).convert("RGB").resize(graph.input_size[::-1]) for each in photographs]
    images = np.stack([np.asarray(each, np.float32) / 255 for each in pixels])
    expected = session.predict(path, images)
    assert np.abs(expected - outputs(graph, images)).max() < 1e-4
    writer.write(graph, tmp_path / "back.tflite")
    assert np.abs(expected - session.predict(tmp_path / "back.tflite", images)).max() < 1e-4
    assert len(file.operators(tmp_path / "back.tflite")) <= len(file.operators(path))
    assert graph.description.output_kind == "probabilities"


# Files made here, operator by operator.
SHAPE = (1, 9, 12, 4)


def built(path: Path, add: object, shape: tuple[int, ...] = SHAPE) -> Path:
    """A file whose operators `add(builder, input)` appends, returning the output tensor."""
    builder = ModelBuilder()
    source = builder.tensor("image", shape)
    target = add(builder, source)
    path.write_bytes(builder.finish([source], [target], Description()))
    return path


def mediapipe(builder: ModelBuilder, source: int) -> int:
    random = np.random.default_rng(0)
    target = builder.tensor("up", (1, 18, 24, 3))
    inputs = (
        source,
        builder.constant("weight", random.normal(size=(3, 2, 2, 4)).astype(np.float32)),
        builder.constant("bias", random.normal(size=3).astype(np.float32)),
    )
    builder.operator(tflite.BuiltinOperator.CUSTOM, inputs, target)
    builder.model.operatorCodes[-1].customCode = b"Convolution2DTransposeBias"
    builder.subgraph.operators[-1].customOptions = np.frombuffer(struct.pack("<3i", 1, 2, 2), np.uint8)
    return target


def test_mediapipe_transposed_convolution(tmp_path):
    path = built(tmp_path / "m.tflite", mediapipe)
    graph = slimseg.load(path)
    images = images_for(graph)
    assert graph.layer_as(graph.output, nn.ConvTranspose2d) is not None
    try:
        expected = session.predict(path, images)  # XNNPACK takes it where LiteRT itself has no kernel
    except slimseg.SlimsegError:
        writer.write(graph, tmp_path / "back.tflite")
        expected = session.predict(tmp_path / "back.tflite", images)
    assert largest_difference(expected, outputs(graph, images)) < 1e-4


def unknown(builder: ModelBuilder, source: int) -> int:
    target = builder.tensor("normed", SHAPE)
    options = tflite.L2NormOptionsT()
    code, kind = tflite.BuiltinOperator.L2_NORMALIZATION, tflite.BuiltinOptions.L2NormOptions
    builder.operator(code, (source,), target, options, kind)
    return target


def test_an_operator_outside_the_vocabulary_is_named(tmp_path):
    path = built(tmp_path / "m.tflite", unknown)
    with pytest.raises(UnknownOperator, match=r"L2_NORMALIZATION \(normed\).*profile"):
        slimseg.load(path)
    assert slimseg.profile(path, runs=3).layers[0].op == "L2_NORMALIZATION"


def test_several_inputs_are_refused(tmp_path):
    builder = ModelBuilder()
    a, b, c = (builder.tensor(name, SHAPE) for name in "abc")
    builder.operator(tflite.BuiltinOperator.ADD, (a, b), c, tflite.AddOptionsT(), tflite.BuiltinOptions.AddOptions)
    path = tmp_path / "m.tflite"
    path.write_bytes(builder.finish([a, b], [c], Description()))
    with pytest.raises(ModelError, match="2 inputs"):
        slimseg.load(path)


LAYERS = [
    nn.Conv2d(4, 4, 3, 1, 1),
    nn.Conv2d(4, 4, 3, padding=2, dilation=2),
    nn.Conv2d(4, 4, 3, padding=1, groups=4),
    nn.Conv2d(4, 4, 1, groups=2),
    *(kind() for kind in (nn.ReLU, nn.ReLU6, nn.Hardswish, nn.Sigmoid, nn.Tanh, nn.ELU, nn.GELU, nn.SiLU)),
    nn.Hardsigmoid(),
    nn.LeakyReLU(0.2),
    nn.PReLU(4),
    nn.Hardtanh(-1, 1),
    nn.Hardtanh(0, 1),
    nn.Softmax(1),
    nn.MaxPool2d(3, 1, 1),
    nn.AvgPool2d(3, 1, 1, count_include_pad=False),
    nn.AdaptiveAvgPool2d(1),
    ops.Affine(torch.randn(4, 1, 1), torch.ones(())),
    ops.Resize((12, 16)),
    ops.Resize((9, 14), "bilinear", "align_corners"),
    ops.Resize((12, 9), "bilinear", "asymmetric"),
    ops.Resize((11, 16), "nearest-exact"),
    ops.Pad((1, 0, 2, 1), 0.5),
    ops.Slice(1, 0, 4),
    ops.Slice(2, 1, 7),
    ops.CroppedConvTranspose2d(4, 4, 3, 2, crop=(0, 1, 0, 1)),
    nn.ConvTranspose2d(4, 4, 2, 2),
    nn.ConvTranspose2d(4, 4, 4, 2, 1),
    ops.Unary("abs"),
    ops.Reduce("max", (1,), True),
    ops.SpaceToDepth(1),
    ops.Transpose((0, 1, 3, 2)),
]


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(layers=st.lists(st.sampled_from(LAYERS), min_size=1, max_size=5, unique_by=id))
def test_any_chain_survives_being_written_and_opened(tmp_path, layers):
    """The writer and this frontend against each other, through the runtime's own file format."""
    size = (8, 12)
    try:
        graph = edit.trace(nn.Sequential(*layers).eval(), (1, 4, *size))
        writer.write(graph, tmp_path / "m.tflite")
    except slimseg.SlimsegError:
        return  # the chain itself is not possible (a convolution behind a maximum over channels)
    opened = slimseg.load(tmp_path / "m.tflite")
    image = torch.randn(graph.input_shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = graph(image)
        torch.testing.assert_close(
            opened(image), expected, atol=1e-4 * max(1.0, float(expected.abs().max())), rtol=1e-4
        )


@pytest.mark.parametrize(
    ("data", "dtype", "shape"),
    [
        (np.zeros(3, np.uint8), "float32", (1,)),
        (np.zeros(4, np.uint8), "float32", (1 << 30, 1 << 30)),
        (np.zeros(4, np.uint8), "int4", (9,)),
        (np.zeros(4, np.uint8), "string", (4,)),
    ],
)
def test_constants_that_are_not_what_their_shape_says(data, dtype, shape):
    with pytest.raises(ModelError):
        constants.decoded(data, dtype, shape, None)


def test_int4_constants():
    data = np.array([0x21, 0xF8, 0x07], np.uint8)
    assert constants.decoded(data, "int4", (5,), None).tolist() == [1, 2, -8, -1, 7]


SAMPLES = {name: (DATA / f"{name}.tflite").read_bytes() for name in ("gated_float", "planar_float", "old_float")}


@settings(
    max_examples=150, deadline=10_000, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    sample=st.sampled_from(sorted(SAMPLES)),
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=12),
    keep=st.one_of(st.just(1.0), st.floats(0, 1)),
)
def test_damaged_files_are_one_sentence(tmp_path, sample, flips, keep):
    data = bytearray(SAMPLES[sample][: int(len(SAMPLES[sample]) * keep)])
    for place, value in flips:
        if data:
            data[int(place * len(data))] = value
    path = tmp_path / "m.tflite"
    path.write_bytes(data)
    try:
        graph = slimseg.load(path)
    except ModelError as error:
        message = str(error)
    else:
        message = f"{path.name} {graph.shape(graph.output)}"
    assert "\n" not in message
    assert path.name in message
