"""The direct writer against PyTorch, over the settings of every layer."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

import slimseg
from slimseg.errors import Unsupported
from slimseg.graph import edit, ops
from slimseg.graph.graph import Graph
from slimseg.runtimes.litert.session import Session
from slimseg.runtimes.litert.writing import writer
from slimseg.tflite import file

quick = settings(
    max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def compare(graph: Graph, path: Path, tolerance: float = 1e-4) -> list[file.Operator]:
    """Write, run, compare with PyTorch; returns the file's operators."""
    writer.write(graph, path)
    image = torch.randn(graph.input_shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = graph(image).numpy()
    got = Session(path).run(image.permute(0, 2, 3, 1).numpy())
    got = got.transpose(0, 3, 1, 2) if got.ndim == 4 else got
    np.testing.assert_allclose(got, expected, atol=tolerance * max(1.0, float(np.abs(expected).max())))
    return list(file.operators(path))


def chain(*layers: nn.Module, channels: int = 4, size: tuple[int, int] = (9, 12)) -> Graph:
    return edit.trace(nn.Sequential(*layers).eval(), (1, channels, *size))


sides = st.tuples(st.integers(5, 13), st.integers(5, 13))
pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))


@quick
@given(
    size=sides,
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 5)),
    stride=pairs,
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    dilation=pairs,
    groups=st.sampled_from([1, 2, 4]),
    multiplier=st.integers(1, 2),
    bias=st.booleans(),
    activation=st.sampled_from([None, nn.ReLU, nn.ReLU6]),
)
def test_convolution(tmp_path, size, kernel, stride, padding, dilation, groups, multiplier, bias, activation):
    assume(all((k - 1) * d + 1 <= n + 2 * p for n, k, p, d in zip(size, kernel, padding, dilation, strict=True)))
    layer = nn.Conv2d(4, 4 * multiplier, kernel, stride, padding, dilation, groups, bias)
    layers = [layer] if activation is None else [layer, activation()]
    operators = compare(chain(*layers, size=size), tmp_path / "m.tflite")
    assert [each.op for each in operators if each.op != "PAD"] == ["DEPTHWISE_CONV_2D" if groups == 4 else "CONV_2D"], (
        "an activation is fused"
    )


@quick
@given(
    size=sides,
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=pairs,
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    extra=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    relu=st.booleans(),
)
def test_transposed_convolution(tmp_path, size, kernel, stride, padding, extra, relu):
    assume(all(e < s and p < k for e, s, p, k in zip(extra, stride, padding, kernel, strict=True)))
    layer = nn.ConvTranspose2d(4, 3, kernel, stride, padding, extra)
    operators = compare(chain(layer, *([nn.ReLU()] if relu else []), size=size), tmp_path / "m.tflite")
    made = [each.op for each in operators]
    assert made in (["TRANSPOSE_CONV", *relu * ["RELU"]], ["TRANSPOSE_CONV", *relu * ["RELU"], "SLICE"])
    assert not any(each.activated for each in operators)  # a GPU takes no transposed convolution with an activation
    assert "layer_0" in [each.name for each in operators]
    assert operators[-1].result == ("layer_1" if relu else "layer_0")


@quick
@given(
    size=sides,
    kernel=pairs,
    stride=pairs,
    padding=st.tuples(st.integers(0, 1), st.integers(0, 1)),
    kind=st.sampled_from(["max", "max after relu", "average", "average, uncounted", "max, ceil"]),
)
def test_pooling(tmp_path, size, kernel, stride, padding, kind):
    assume(all(2 * p <= k for p, k in zip(padding, kernel, strict=True)))
    if kind.startswith("max"):
        pool: nn.Module = nn.MaxPool2d(kernel, stride, padding, ceil_mode="ceil" in kind)
    else:
        pool = nn.AvgPool2d(kernel, stride, padding if kind == "average" else 0, count_include_pad=kind == "average")
    first = [nn.ReLU()] if "relu" in kind else []
    compare(chain(*first, pool, size=size), tmp_path / "m.tflite")


@pytest.mark.parametrize("kind", [nn.MaxPool2d, lambda *a: nn.AvgPool2d(*a, count_include_pad=False)])
def test_same_pooling_needs_no_pad(tmp_path, kind):
    (operator,) = compare(chain(kind(3, 1, 1)), tmp_path / "m.tflite")
    assert operator.op in ("MAX_POOL_2D", "AVERAGE_POOL_2D")


@quick
@given(
    size=sides,
    to=st.tuples(st.integers(2, 30), st.integers(2, 30)),
    how=st.sampled_from(
        [
            ("bilinear", "half_pixel"),
            ("bilinear", "align_corners"),
            ("bilinear", "asymmetric"),
            ("nearest", "asymmetric"),
            ("nearest", "align_corners"),
            ("nearest-exact", "half_pixel"),
        ]
    ),
)
def test_resize(tmp_path, size, to, how):
    compare(chain(ops.Resize(to, *how), size=size), tmp_path / "m.tflite")


@quick
@given(
    padding=st.tuples(*[st.integers(0, 3)] * 4),
    stride=st.integers(1, 2),
    kernel=st.integers(1, 4),
    own=st.integers(0, 1),
    value=st.sampled_from([0.0, 0.5]),
)
def test_pad_before_a_convolution(tmp_path, padding, stride, kernel, own, value):
    graph = chain(ops.Pad(padding, value), nn.Conv2d(4, 3, kernel, stride, own))
    compare(graph, tmp_path / "m.tflite")


def test_a_zero_pad_folds_into_same_padding(tmp_path):
    graph = chain(ops.Pad((0, 1, 0, 1)), nn.Conv2d(4, 3, 3, 2), size=(8, 8))
    (operator,) = compare(graph, tmp_path / "m.tflite")
    assert (operator.op, operator.name) == ("CONV_2D", "layer_1")
    assert writer.serialise(graph).covers == {"layer_1": ("layer_0", "layer_1")}


def test_a_negative_pad_crops(tmp_path):
    (operator,) = compare(chain(ops.Pad((-1, -2, 0, -1))), tmp_path / "m.tflite")
    assert operator.op == "SLICE"


LAYERS = [
    nn.ReLU(), nn.ReLU6(), nn.Hardtanh(), nn.Hardtanh(0, 1), nn.Hardtanh(-0.5, 2), nn.LeakyReLU(0.2), nn.PReLU(),
    nn.PReLU(4, 0.1), nn.Hardswish(), nn.Hardsigmoid(), nn.SiLU(), nn.Sigmoid(), nn.Tanh(), nn.GELU(),
    nn.GELU("tanh"), nn.Softmax(1), ops.ArgMax(), ops.Slice(1, 1, 3), ops.Slice(2, 2, 5), ops.Slice(3, 0, 1),
    nn.AdaptiveAvgPool2d(1), nn.AdaptiveAvgPool2d((3, 4)), nn.BatchNorm2d(4), ops.Affine(torch.tensor(2.0)),
    ops.Affine(torch.rand(4, 1, 1), torch.rand(4, 1, 1)), ops.Affine(shift=torch.tensor(3.0)),
    nn.Softmax(2), nn.Softmax(3), nn.AdaptiveAvgPool2d((6, 5)),
    ops.Normalise((1,), 1e-5), ops.Normalise((2, 3), 0.1), ops.Normalise((1, 2, 3), 0.1, groups=2),
    ops.Normalise((3,), 1e-5), ops.Normalise((1,), 1e-5, centred=False),
    nn.Linear(12, 5),
]  # fmt: skip


@pytest.mark.parametrize("layer", LAYERS, ids=repr)
def test_layer(tmp_path, layer):
    operators = compare(chain(layer), tmp_path / "m.tflite")
    assert operators[-1].name == "layer_0"


class Branches(nn.Module):
    def __init__(self, how: nn.Module) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
        self.relu, self.how = nn.ReLU(), how

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.how(self.left(x), self.relu(self.right(x))))


@pytest.mark.parametrize("how", [ops.Add(), ops.Multiply(), ops.Concat(1), ops.Concat(2)], ids=repr)
def test_two_inputs_with_fused_activations(tmp_path, how):
    operators = compare(edit.trace(Branches(how).eval(), (1, 4, 8, 8)), tmp_path / "m.tflite")
    assert len(operators) == (4 if isinstance(how, ops.Concat) else 3)


class Gate(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.pool, self.conv, self.times = nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 4, 1), ops.Multiply()

    def forward(self, x: Tensor) -> Tensor:
        return self.times(x, self.conv(self.pool(x)))


def test_squeeze_and_excitation(tmp_path):
    compare(edit.trace(Gate().eval(), (1, 4, 8, 8)), tmp_path / "m.tflite")


def test_a_value_read_twice_is_not_fused_away(tmp_path):
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.relu, self.add = nn.Conv2d(4, 4, 1), nn.ReLU(), ops.Add()

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x)
            return self.add(x, self.relu(x))

    names = [each.name for each in compare(edit.trace(Twice().eval(), (1, 4, 5, 5)), tmp_path / "m.tflite")]
    assert names == ["conv", "relu", "add"]


def test_camvid_unet_equals_pytorch_on_a_real_image(shared, tmp_path):
    graph = slimseg.load(shared / "models/camvid_unet.pt2", (96, 128), mean=127, std=128)
    image = next((shared / "camvid/val/images").iterdir())
    height, width = graph.input_size
    pixels = np.asarray(Image.open(image).convert("RGB").resize((width, height)), np.float32)
    value = (pixels[None] - 127) / 128
    writer.write(graph, tmp_path / "m.tflite")
    with torch.no_grad():
        expected = graph(torch.from_numpy(value.transpose(0, 3, 1, 2).copy())).numpy()
    got = Session(tmp_path / "m.tflite", threads=2).run(value)
    assert np.abs(got.transpose(0, 3, 1, 2) - expected).max() < 1e-3
    nodes = {node.name for node in graph.layers()}
    steps = {each.name for each in file.operators(tmp_path / "m.tflite")} - nodes
    assert all(name.endswith(("_padded", "_uncropped", "_activated")) for name in steps), steps
    assert file.read_description(tmp_path / "m.tflite") == graph.description


class Summed(nn.Module):
    """A network with one opaque node."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).logcumsumexp(2)


def test_an_opaque_node_without_litert_torch_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "litert_torch", None)
    graph = slimseg.load(Summed(), (8, 8), name="tiny")
    with pytest.raises(Unsupported, match=r"tiny has layers .*logcumsumexp.*pip install 'slimseg\[litert-torch\]'"):
        writer.serialise(graph)


@pytest.mark.skipif(importlib.util.find_spec("litert_torch") is None, reason="the extra litert-torch is not installed")
def test_an_opaque_node_goes_through_litert_torch(tmp_path):
    graph = slimseg.load(Summed(), (8, 8))
    compare(graph, tmp_path / "m.tflite", 1e-3)
    assert file.read_description(tmp_path / "m.tflite") == graph.description


@pytest.mark.parametrize(
    "layer",
    [
        *(ops.Unary(name) for name in ("abs", "exp", "neg", "square")),
        nn.ELU(),
        ops.SpatialPReLU(torch.randn(4, 8, 12)),
        ops.Affine(torch.randn(4, 1, 1), torch.randn(4, 8, 12)),
        ops.Affine(torch.randn(1, 8, 12)),
        ops.Affine(torch.tensor(2.0), torch.tensor(0.5)),
        ops.Slice(1, 1, 4, 2),
        ops.Slice(3, 1, 12, 3),
        ops.Reshape((1, 384)),
        ops.Reshape((1, 384), channels_last=False),
        ops.Reshape((1, 96, 4)),
        ops.Reshape((1, 8, 12, 4)),
        ops.Reshape((1, 8, 12, 4), channels_last=False),
        ops.Transpose((0, 3, 1, 2)),
        ops.DepthToSpace(2),
        ops.SpaceToDepth(2),
        ops.Cast("int32"),
        *(ops.Reduce(kind, (1,), True) for kind in ("mean", "sum", "max", "min")),
        ops.Reduce("mean", (2, 3), False),
        ops.Reduce("max", (1,), False),
        nn.Hardtanh(-float("inf"), 0.5),
        nn.Hardtanh(-0.5, float("inf")),
        nn.Hardtanh(-0.5, 0.7),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        nn.AvgPool2d(3, 2, ceil_mode=True, count_include_pad=False),
    ],
    ids=repr,
)
def test_one_layer(tmp_path, layer):
    compare(chain(layer, size=(8, 12)), tmp_path / "m.tflite")


@pytest.mark.parametrize("kind", [ops.Subtract, ops.Divide, ops.Maximum, ops.Minimum])
def test_two_inputs(tmp_path, kind):
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.act, self.both = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1), nn.Sigmoid(), kind()

        def forward(self, x: Tensor) -> Tensor:
            return self.both(self.a(x), self.act(self.b(x)))

    compare(edit.trace(Two().eval(), (1, 4, 6, 7)), tmp_path / "m.tflite")


@quick
@given(size=sides, kernel=st.integers(1, 4), stride=st.integers(1, 3), crop=st.tuples(*[st.integers(0, 2)] * 4))
def test_cropped_transposed_convolution(tmp_path, size, kernel, stride, crop):
    layer = ops.CroppedConvTranspose2d(4, 3, kernel, stride, crop=crop)
    compare(chain(layer, nn.ReLU(), size=size), tmp_path / "m.tflite")


def test_same_transposed_convolution_is_one_operator(tmp_path):
    """Where the stride divides the input: else, Qualcomm's NPU refuses it."""
    layer = ops.CroppedConvTranspose2d(4, 3, 3, 2, crop=(0, 1, 0, 1))
    assert [each.op for each in compare(chain(layer, size=(8, 12)), tmp_path / "m.tflite")] == ["TRANSPOSE_CONV"]
    uneven = compare(chain(layer, size=(9, 12)), tmp_path / "m.tflite")
    assert [each.op for each in uneven] == ["TRANSPOSE_CONV", "SLICE"]


def test_linear_gate(tmp_path):
    """Squeeze-and-excitation as Keras writes it."""

    class Gate(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mean, self.down, self.relu = ops.Reduce("mean", (2, 3), False), nn.Linear(4, 2), nn.ReLU()
            self.up, self.gate, self.map = nn.Linear(2, 4), nn.Sigmoid(), ops.Reshape((1, 4, 1, 1))
            self.scale = ops.Multiply()

        def forward(self, x: Tensor) -> Tensor:
            return self.scale(x, self.map(self.gate(self.up(self.relu(self.down(self.mean(x)))))))

    operators = compare(edit.trace(Gate().eval(), (1, 4, 6, 7)), tmp_path / "m.tflite")
    assert [each.op for each in operators].count("FULLY_CONNECTED") == 2
    assert "RELU" not in [each.op for each in operators], "the activation is fused"


@pytest.mark.parametrize(
    ("padding", "channels"),
    [((1, 2, 0, 3), (0, 4)), ((-1, 0, 0, -2), (0, 0)), ((-1, 2, 1, -2), (0, 0)), ((0,) * 4, (0, 4))],
)
def test_pad(tmp_path, padding, channels):
    compare(chain(ops.Pad(padding, 0.5, channels), size=(8, 12)), tmp_path / "m.tflite")


class Shuffled(nn.Module):
    """A channel shuffle, a split and a squeeze-and-excitation gate as PyTorch spells them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.down, self.up = nn.Conv2d(3, 8, 3, 2, 1), nn.Linear(8, 4), nn.Linear(4, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        batch, channels, height, width = x.shape
        x = x.view(batch, 2, channels // 2, height, width).transpose(1, 2).reshape(batch, channels, height, width)
        first, second = x.chunk(2, 1)
        x = torch.cat([torch.maximum(first, second), second / (first.abs() + 1)], 1)
        gate = torch.sigmoid(self.up(torch.relu(self.down(x.mean((2, 3))))))
        return x * gate[:, :, None, None]


def test_what_pytorch_spells_with_views_is_written_without_a_compiler(tmp_path):
    torch.manual_seed(0)
    graph = slimseg.load(Shuffled().eval(), (16, 24))
    assert graph.opaque() == []
    compare(graph, tmp_path / "m.tflite")
    graph(torch.randn(2, *graph.input_shape[1:])).sum().backward()  # two images at once train as well


@pytest.mark.parametrize(
    "layers",
    [
        (nn.Softmax(1), ops.Slice(1, 1, 2), ops.Reshape((1, 8, 12))),
        (ops.Slice(2, 3, 4), ops.Reshape((1, 12, 4))),
        (ops.Reshape((1, 96, 4)), nn.Softmax(2), ops.Slice(2, 1, 2), ops.Reshape((1, 96))),
    ],
    ids=["channel", "row", "flat"],
)
def test_one_place_of_an_axis_is_one_operator(tmp_path, layers):
    operators = compare(chain(*layers, size=(8, 12)), tmp_path / "m.tflite")
    assert operators[-1].op == "STRIDED_SLICE"


@pytest.mark.parametrize("moved", [(9, 8, 7, 6, 5, 4, 3, 2, 1), (3, 6, 2, 5, 1, 4, 7, 8, 9)], ids=["turned", "windows"])
def test_transposing_more_dimensions_than_a_kernel_takes(tmp_path, moved):
    layers = ops.Reshape((1, *[2] * 9), False), ops.Transpose((0, *moved)), ops.Reshape((1, 8, 8, 8), False)
    operators = compare(chain(*layers, channels=8, size=(8, 8)), tmp_path / "m.tflite")
    assert [each.op for each in operators].count("TRANSPOSE") <= 4


def test_more_dimensions_than_a_kernel_takes_are_refused_by_name(tmp_path):
    halves = ops.Reshape((1, *[2] * 8), False)
    with pytest.raises(Unsupported, match=r"layer_0: .* take 8 dimensions, not 9"):
        writer.write(chain(halves, nn.Softmax(3), ops.Reshape((1, 4, 8, 8), False), size=(8, 8)), tmp_path / "m.tflite")


def test_a_row_that_is_reshaped_otherwise_is_two_operators(tmp_path):
    operators = compare(chain(ops.Slice(2, 3, 4), ops.Reshape((1, 4, 12)), size=(8, 12)), tmp_path / "m.tflite")
    assert [each.op for each in operators] == ["SLICE", "RESHAPE"]
