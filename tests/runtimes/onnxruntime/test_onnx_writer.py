"""The ONNX writer against PyTorch, over the settings of every layer, and what the file says about itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from slimseg import load
from slimseg.errors import Unsupported
from slimseg.graph import edit, ops
from slimseg.graph.graph import Graph
from slimseg.runtimes.onnxruntime import writer
from slimseg.runtimes.onnxruntime.model import OPSET

SIZE = (9, 12)


class Two(nn.Module):
    """A layer on two values: the image's first three channels and its last three."""

    def __init__(self, layer: nn.Module, dim: int = 1) -> None:
        super().__init__()
        self.first, self.second, self.layer = ops.Slice(1, 0, 2), ops.Slice(1, 2, 4), layer

    def forward(self, image: Tensor) -> Tensor:
        return self.layer(self.first(image), self.second(image))


class Sampled(nn.Module):
    """Values of a map at positions that a convolution computes."""

    def __init__(self, align_corners: bool, outside: ops.Outside) -> None:
        super().__init__()
        self.places, self.turn = nn.Conv2d(4, 2, 3, padding=1), ops.Transpose((0, 2, 3, 1))
        self.sample = ops.GridSample(outside, align_corners)

    def forward(self, image: Tensor) -> Tensor:
        return self.sample(image, self.turn(self.places(image)))


class CalledTwice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu = nn.Conv2d(4, 4, 3, padding=1), nn.ReLU()

    def forward(self, image: Tensor) -> Tensor:
        return self.conv(self.relu(self.conv(image)))


def spatial_slopes() -> ops.SpatialPReLU:
    return ops.SpatialPReLU(nn.Parameter(torch.randn(4, *SIZE)))


RESIZES = [
    ops.Resize(size, mode, coordinates)
    for size in ((18, 24), (5, 7), (1, 30))
    for mode, coordinates in (
        ("bilinear", "half_pixel"),
        ("bilinear", "align_corners"),
        ("bilinear", "asymmetric"),
        ("nearest", "asymmetric"),
        ("nearest-exact", "half_pixel"),
        ("nearest", "align_corners"),
    )
]
LAYERS: list[nn.Module] = [
    nn.Conv2d(4, 6, 3, 2, (1, 0), bias=False),
    nn.Conv2d(4, 8, (3, 2), padding=2, dilation=(2, 1), groups=2),
    nn.Sequential(ops.Pad((0, 1, 2, 0)), nn.Conv2d(4, 4, 3, groups=4), nn.ReLU6()),
    nn.Sequential(nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.LeakyReLU(0.2)),
    CalledTwice(),
    nn.ConvTranspose2d(4, 6, 3, 2, 1, 1, groups=2),
    nn.ConvTranspose2d(4, 3, 2, 3, 0, (2, 1), bias=False),
    ops.CroppedConvTranspose2d(4, 3, 4, 2, crop=(1, 0, 2, 1)),
    nn.Sequential(ops.Transpose((0, 2, 3, 1)), nn.Linear(4, 5), nn.ReLU()),
    nn.Sequential(nn.AdaptiveAvgPool2d(1), ops.Reshape((1, 4)), nn.Linear(4, 12), ops.Reshape((1, 12, 1, 1))),
    nn.MaxPool2d(3, 2, 1, ceil_mode=True),
    nn.MaxPool2d(2, 1, 1, dilation=2),
    nn.AvgPool2d(3, 2, 1, count_include_pad=False),
    nn.AvgPool2d(4, 3, 1, ceil_mode=True),
    nn.AvgPool2d(2, 2, ceil_mode=True),
    nn.AdaptiveAvgPool2d((3, 4)),
    nn.AdaptiveAvgPool2d((2, 5)),
    *(nn.ReLU(), nn.ReLU6(), nn.Hardtanh(-0.5, 2), nn.Hardtanh(0, float("inf")), nn.ELU(0.5), nn.Hardswish()),
    *(nn.Hardsigmoid(), nn.SiLU(), nn.Sigmoid(), nn.Tanh(), nn.GELU(), nn.GELU("tanh"), nn.PReLU(), nn.PReLU(4)),
    *(nn.Softmax(1), nn.Softmax(3), spatial_slopes()),
    *(Two(kind()) for kind in (ops.Add, ops.Subtract, ops.Multiply, ops.Maximum, ops.Minimum, ops.Concat)),
    nn.Sequential(ops.Unary("abs"), Two(ops.Divide())),
    nn.Sequential(ops.Transpose((0, 1, 3, 2)), Two(ops.MatMul(transposed=True))),
    *(nn.Sequential(ops.Unary("abs"), ops.Affine(torch.tensor(2.0), torch.tensor(1.0)), ops.Unary(function))
      for function in ops.Unary.FUNCTIONS),
    ops.Affine(torch.randn(4, 1, 1), torch.randn(4, 9, 1)),
    *(ops.Normalise(*each) for each in (((1, 2, 3), 1e-5, 2), ((1,), 1e-3), ((2, 3), 1e-5), ((1,), 1e-6, 1, False))),
    *(ops.Reduce(*each) for each in (("mean", (1,), True), ("sum", (2,), True), ("max", (2, 3), True))),
    *(ops.Pad((1, -2, -1, 3), 0.5), ops.Pad((0, 0, 1, 1), 0.0, (1, 2)), ops.Slice(2, 1, 8, 3), ops.DepthToSpace(2)),
    *(nn.Sequential(ops.Slice(2, 0, 8), ops.SpaceToDepth(2)), ops.Reshape((1, 36, 12)), ops.Reshape((1, 8, 6, 9))),
    *(ops.Reshape((1, 8, 6, 9), channels_last=False), ops.ArgMax(), nn.Sequential(ops.ArgMax(), ops.Cast("float32"))),
    *(Sampled(True, "border"), Sampled(False, "zeros")),
    *RESIZES,
]  # fmt: skip


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: " ".join(str(layer).split())[:60])
def test_a_layer_equals_pytorch(layer: nn.Module):
    graph = edit.trace(nn.Sequential(layer).eval(), (1, 4, *SIZE))
    image = torch.randn(graph.input_shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = graph(image).numpy()
    (got,) = run(graph, image)
    assert got.dtype == expected.dtype
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, atol=2e-5 * max(1.0, float(np.abs(expected).max())))


def run(graph: Graph, image: Tensor) -> list[np.ndarray]:
    """The outputs of the graph's file, which onnx's own checker accepts."""
    model = writer.serialise(graph)
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: image.numpy()})


def test_what_a_file_says(small: Graph, written: Path):
    model = onnx.load(written)
    assert [each.version for each in model.opset_import] == [OPSET]
    assert model.graph.input[0].name == small.input.name
    assert model.graph.output[0].name == small.output.name
    nodes = {node.name for node in small.layers()}
    assert all(list(node.output) == [node.name] for node in model.graph.node)
    assert {node.name for node in model.graph.node} <= nodes
    shapes = {each.name: [dim.dim_value for dim in each.type.tensor_type.shape.dim] for each in model.graph.value_info}
    assert all(shapes[node.name] == list(small.shape(node)) for node in small.layers() if node.name in shapes)
    assert len(shapes) == len(model.graph.node) - 1


def test_weights_in_16_bits_are_widened_in_the_file(small: Graph, written: Path, tmp_path: Path):
    path = tmp_path / "half.onnx"
    writer.write(small, path, "float16")
    assert path.stat().st_size < 0.65 * written.stat().st_size
    model = onnx.load(path)
    widened = [node for node in model.graph.node if node.op_type == "Cast"]
    stored = {each.name: each for each in model.graph.initializer}
    assert widened
    assert all(stored[node.input[0]].data_type == onnx.TensorProto.FLOAT16 for node in widened)
    exact = writer.serialise(small, "float16 where exact")
    casts = [node.output[0] for node in exact.graph.node if node.op_type == "Cast"]
    assert not [name for name in casts if name.endswith("weight")], "these would be rounded"


def test_uneven_pooling_is_read_back_as_one_layer(tmp_path: Path):
    layers = nn.Sequential(nn.Conv2d(4, 4, 1), nn.AdaptiveAvgPool2d((2, 5)), nn.Conv2d(4, 4, 1))
    path = tmp_path / "pooled.onnx"
    writer.write(edit.trace(layers, (1, 4, *SIZE)), path)
    read = load(path, verify=False)
    kinds = [(node.name, type(read.layer(node))) for node in read.layers()]
    assert kinds == [("layer_0", nn.Conv2d), ("layer_1", nn.AdaptiveAvgPool2d), ("layer_2", nn.Conv2d)]


def test_a_scale_and_shift_are_read_back_as_one_layer(tmp_path: Path):
    path = tmp_path / "affine.onnx"
    affine = ops.Affine(torch.tensor(2.0), torch.tensor(1.0))
    writer.write(edit.trace(nn.Sequential(nn.Sigmoid(), affine, nn.Tanh()), (1, 4, *SIZE)), path)
    read = load(path, verify=False)
    assert [node.name for node in read.layers()] == ["layer_0", "layer_1", "layer_2"]
    with torch.no_grad():
        torch.testing.assert_close(read.layer(read.node("layer_1"))(torch.ones(2)), torch.tensor([3.0, 3.0]))


def test_layers_that_share_weights_store_them_once():
    model = writer.serialise(edit.trace(CalledTwice(), (1, 4, *SIZE)))
    assert len(model.graph.initializer) == 2
    assert len(model.graph.node) == 3


def test_inner_values_give_way_to_layers_of_their_name():
    class Clash(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.swish, self.swish_gate = nn.SiLU(), nn.Conv2d(4, 4, 1)

        def forward(self, image: Tensor) -> Tensor:
            return self.swish(self.swish_gate(image))

    graph = edit.trace(Clash(), (1, 4, *SIZE))
    names = [node.name for node in writer.serialise(graph).graph.node]
    assert names == ["swish_gate", "swish_gate_", "swish"]


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (nn.AvgPool2d(2, divisor_override=3), "layer_0: ONNX's average pooling cannot have a divisor of its own"),
        (nn.MaxPool2d(2, dilation=2, ceil_mode=True), "layer_0: a dilated max pool with ceil_mode is not written"),
    ],
)
def test_what_cannot_be_written_is_refused(layer: nn.Module, reason: str):
    with pytest.raises(Unsupported, match=reason):
        writer.serialise(edit.trace(nn.Sequential(layer), (1, 4, *SIZE)))
