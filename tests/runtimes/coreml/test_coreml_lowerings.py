"""Every lowering, read back from the saved package and evaluated, against the Graph."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from slimseg.errors import Unsupported
from slimseg.graph import edit, ops
from slimseg.graph.graph import Graph
from slimseg.graph.vocabulary import OPERATORS
from slimseg.graph.written_out import WRITTEN_OUT
from slimseg.runtimes.coreml import lowering, package, writer

pytestmark = pytest.mark.skipif(not package.available(), reason=f"coremltools is not installed: {package.INSTALL}")

quick = settings(
    max_examples=8, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
sides = st.tuples(st.integers(5, 13), st.integers(5, 13))
pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))


def compare(graph: Graph, folder: Path, tolerance: float = 1e-4) -> list[str]:
    """Write, evaluate, compare with the Graph; returns the kinds of the program's operations."""
    got, expected, kinds = evaluated(graph, folder)
    assert_close(got, expected, tolerance)
    return kinds


def evaluated(graph: Graph, folder: Path) -> tuple[Tensor, Tensor, list[str]]:
    """What the saved program and the Graph compute, and the kinds of the program's operations."""
    from mil import Program

    artefact = writer.write(graph, folder / "x.mlpackage", precision="float32")
    image = np.random.default_rng(1).integers(0, 256, (1, *graph.input_size, 3), np.uint8)
    with torch.no_grad():
        expected = graph(torch.from_numpy(image).permute(0, 3, 1, 2).float() / 255)
    program = Program(artefact.path)
    got = program(image)
    assert tuple(got.shape) == artefact.output_shape == tuple(expected.shape)
    return got, expected, program.kinds


def assert_close(got: Tensor, expected: Tensor, tolerance: float = 1e-4) -> None:
    torch.testing.assert_close(
        got.double(), expected.double(), rtol=0, atol=tolerance * max(1.0, float(expected.abs().max()))
    )


class Fan(nn.Module):
    """Layers side by side on the same values, their results flattened one behind the other."""

    def __init__(self, sources: Sequence[nn.Module], layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.sources, self.layers = nn.ModuleList(sources), nn.ModuleList(layers)
        self.flat = nn.ModuleList(ops.Reshape((1, -1), channels_last=False) for _ in layers)
        self.join = ops.Concat(1)

    def forward(self, x: Tensor) -> Tensor:
        values = [source(x) for source in self.sources]
        return self.join(*(flat(layer(*values)) for layer, flat in zip(self.layers, self.flat, strict=True)))


def side_by_side(
    sources: Sequence[nn.Module], layers: Sequence[nn.Module], size: tuple[int, int], folder: Path
) -> list[tuple[Tensor, Tensor]]:
    """Of every layer what the program and the Graph compute: one program, as each takes a quarter of a second."""
    graph = edit.trace(Fan(sources, layers).eval(), (1, 3, *size))
    got, expected, _ = evaluated(graph, folder)
    lengths = [graph.shape(source)[1] for source in graph.output.all_input_nodes]
    return list(zip(got.split(lengths, 1), expected.split(lengths, 1), strict=True))


def chain(*layers: nn.Module, channels: int = 4, size: tuple[int, int] = (9, 12), positive: bool = False) -> Graph:
    """The layers behind a convolution from an image to `channels`."""
    return edit.trace(nn.Sequential(first_layer(channels, positive), *layers).eval(), (1, 3, *size))


def first_layer(channels: int = 4, positive: bool = False) -> nn.Conv2d:
    """Its values are of both signs, if they may be."""
    torch.manual_seed(0)
    layer = nn.Conv2d(3, channels, 1)
    with torch.no_grad():
        layer.weight.mul_(6)
        if positive:
            layer.weight.abs_()
            layer.bias.abs_().add_(0.1)
    return layer


@quick
@given(
    size=sides,
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 5)),
    stride=pairs,
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    dilation=pairs,
    groups=st.sampled_from([1, 2, 8]),
    bias=st.booleans(),
    before=st.sampled_from([None, (1, 0, 2, 1)]),
)
def test_convolution(tmp_path, size, kernel, stride, padding, dilation, groups, bias, before):
    assume(all((k - 1) * d + 1 <= n + 2 * p for n, k, p, d in zip(size, kernel, padding, dilation, strict=True)))
    layer = nn.Conv2d(8, 16, kernel, stride, padding, dilation, groups, bias)
    layers = [layer] if before is None else [ops.Pad(before), layer]
    assert "pad" not in compare(chain(*layers, channels=8, size=size), tmp_path)


@quick
@given(
    size=sides,
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=pairs,
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    extra=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    dilation=pairs,
    groups=st.sampled_from([1, 2, 4]),
    crop=st.tuples(*[st.integers(0, 1)] * 4),
    bias=st.booleans(),
)
def test_transposed_convolution(tmp_path, size, kernel, stride, padding, extra, dilation, groups, crop, bias):
    assume(all(e < max(s, d) for e, s, d in zip(extra, stride, dilation, strict=True)))
    settings = {"output_padding": extra, "groups": groups, "bias": bias, "dilation": dilation}
    layer = (
        ops.CroppedConvTranspose2d(4, 8, kernel, stride, padding, crop=crop, **settings)
        if any(crop)
        else nn.ConvTranspose2d(4, 8, kernel, stride, padding, **settings)
    )
    full = [
        (n - 1) * s - 2 * p + d * (k - 1) + e + 1
        for n, s, p, d, k, e in zip(size, stride, padding, dilation, kernel, extra, strict=True)
    ]
    assume(full[0] > crop[2] + crop[3] and full[1] > crop[0] + crop[1])
    compare(chain(layer, size=size), tmp_path)


@quick
@given(
    size=sides,
    kernel=st.tuples(st.integers(2, 4), st.integers(2, 4)),
    stride=pairs,
    padding=st.tuples(st.integers(0, 1), st.integers(0, 1)),
    ceil=st.booleans(),
    counted=st.booleans(),
)
def test_pooling(tmp_path, size, kernel, stride, padding, ceil, counted):
    layers = nn.AvgPool2d(kernel, stride, padding, ceil, counted), nn.MaxPool2d(kernel, stride, padding, ceil_mode=ceil)
    for got, expected in side_by_side([first_layer()], layers, size, tmp_path):
        assert_close(got, expected)


@quick
@given(
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    to=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    mode=st.sampled_from(["bilinear", "nearest", "nearest-exact"]),
    coordinates=st.sampled_from(["half_pixel", "align_corners", "asymmetric"]),
)
def test_resize(tmp_path, size, to, mode, coordinates):
    compare(chain(ops.Resize(to, mode, coordinates), size=size), tmp_path)


RESIZES = [
    ops.Resize(to, mode, coordinates)
    for to in ((10, 12), (5, 6), (1, 3), (7, 8))
    for mode in ("bilinear", "nearest", "nearest-exact")
    for coordinates in ("half_pixel", "align_corners", "asymmetric")
]


@pytest.fixture(scope="module")
def resized(tmp_path_factory):
    return side_by_side([first_layer()], RESIZES, (5, 6), tmp_path_factory.mktemp("resized"))


@pytest.mark.parametrize("number", range(len(RESIZES)), ids=[repr(each) for each in RESIZES])
def test_resize_by_whole_and_other_factors(resized, number):
    assert_close(*resized[number])


def normed(channels: int) -> nn.BatchNorm2d:
    layer = nn.BatchNorm2d(channels)
    layer.running_mean.uniform_(), layer.running_var.uniform_(0.5, 2)
    return layer


ONE_TENSOR = [
    nn.ReLU(),
    nn.ReLU6(),
    nn.Hardtanh(-0.3, 0.7),
    nn.Hardtanh(0.0, float("inf")),
    nn.Hardtanh(float("-inf"), 0.4),
    nn.LeakyReLU(0.2),
    nn.PReLU(4, 0.3),
    nn.PReLU(1, 0.1),
    ops.SpatialPReLU(torch.rand(4, 9, 12)),
    nn.Hardswish(),
    nn.Hardsigmoid(),
    nn.SiLU(),
    nn.Sigmoid(),
    nn.Tanh(),
    nn.GELU(),
    nn.GELU(approximate="tanh"),
    nn.ELU(0.7),
    nn.Softmax(1),
    nn.Softmax(3),
    nn.Sequential(nn.ReLU(), normed(4)),
    nn.AdaptiveAvgPool2d(1),
    nn.AdaptiveAvgPool2d((3, 4)),
    nn.AdaptiveAvgPool2d(3),
    nn.AdaptiveAvgPool2d((5, 7)),
    ops.Unary("abs"),
    ops.Unary("exp"),
    ops.Unary("neg"),
    ops.Unary("square"),
    ops.Unary("sin"),
    ops.Unary("cos"),
    ops.Unary("floor"),
    ops.Unary("sign"),
    ops.Affine(torch.rand(4, 1, 1), torch.rand(4, 1, 1)),
    ops.Affine(torch.tensor(0.5)),
    ops.Affine(None, torch.rand(4, 9, 12)),
    ops.Pad((1, 2, 3, 0), 0.5),
    ops.Pad((1, -2, -3, 0)),
    ops.Pad((-1, -2, 0, -3)),
    ops.Pad((0, 0, 0, 0), 0.0, (1, 2)),
    ops.Pad((0, 0, 0, 0)),
    ops.Slice(1, 1, 3),
    ops.Slice(2, 1, 8, 2),
    ops.Slice(3, 0, 11, 3),
    ops.Reduce("mean", (2, 3), True),
    ops.Reduce("sum", (1,), True),
    ops.Reduce("max", (1,), False),
    ops.Reduce("min", (2,), False),
    nn.Linear(12, 5),
    nn.Linear(12, 5, bias=False),
    ops.Normalise((1,), 1e-5),
    ops.Normalise((2, 3), 0.1),
    ops.Normalise((1, 2, 3), 0.1, groups=2),
    ops.Normalise((3,), 1e-5, centred=False),
]


@pytest.fixture(scope="module")
def of_one_tensor(tmp_path_factory):
    return side_by_side([first_layer()], ONE_TENSOR, (9, 12), tmp_path_factory.mktemp("one"))


@pytest.mark.parametrize("number", range(len(ONE_TENSOR)), ids=[repr(each) for each in ONE_TENSOR])
def test_one_tensor(of_one_tensor, number):
    assert_close(*of_one_tensor[number])


ALONE = [
    normed(4),  # folded into the convolution before it
    ops.Reshape((1, 432)),
    ops.Reshape((1, 432), channels_last=False),
    ops.Reshape((1, 2, 18, 12)),
    ops.Reshape((1, 2, 18, 12), channels_last=False),
    ops.Reshape((1, -1, 4)),
    ops.Reshape((1, 4, 3, 3, 12), channels_last=False),
    ops.Transpose((0, 2, 3, 1)),
    ops.ArgMax(),
    ops.Cast("int32"),
    ops.Cast("int64"),
]


@pytest.mark.parametrize("layer", ALONE, ids=repr)
def test_what_a_reshape_behind_it_would_swallow(tmp_path, layer):
    compare(chain(layer), tmp_path)


def test_functions_of_positive_numbers(tmp_path):
    functions = [ops.Unary(function) for function in ("log", "sqrt", "rsqrt", "reciprocal")]
    for got, expected in side_by_side([first_layer(positive=True)], functions, (9, 12), tmp_path):
        assert_close(got, expected)


@pytest.mark.parametrize("block", [2, 3])
def test_blocks(tmp_path, block):
    compare(chain(ops.DepthToSpace(block), channels=2 * block**2), tmp_path)
    compare(chain(ops.SpaceToDepth(block), size=(2 * block, 3 * block)), tmp_path)


@pytest.mark.parametrize("layer", [nn.Linear(4, 5), nn.PReLU(4, 0.2), nn.Softmax(1)], ids=repr)
def test_flat_tensors(tmp_path, layer):
    compare(chain(nn.AdaptiveAvgPool2d(1), ops.Reshape((1, 4)), layer), tmp_path)


TWO_TENSORS = [ops.Add(), ops.Subtract(), ops.Multiply(), ops.Divide(), ops.Maximum(), ops.Minimum()]
CONCATENATIONS = [ops.Concat(dim) for dim in (1, 2, 3)]


@pytest.mark.parametrize("gate", [False, True])
def test_two_tensors(tmp_path, gate):
    torch.manual_seed(1)
    other = nn.Conv2d(3, 4, 1)
    sources = [first_layer(), nn.Sequential(other, nn.AdaptiveAvgPool2d(1)) if gate else other]
    layers = [*TWO_TENSORS, *([] if gate else CONCATENATIONS)]
    for layer, (got, expected) in zip(layers, side_by_side(sources, layers, (6, 7), tmp_path), strict=True):
        assert_close(got, expected, 1e-3 if isinstance(layer, ops.Divide) else 1e-4)


@pytest.mark.parametrize("layer", [ops.GridSample("zeros"), ops.GridSample("border", align_corners=True)], ids=repr)
def test_computed_positions(tmp_path, layer):
    """Core ML computes them in 16 bits: some hundredths of a pixel."""
    torch.manual_seed(1)
    positions = nn.Sequential(nn.Conv2d(3, 2, 1), ops.Transpose((0, 2, 3, 1)))
    for got, expected in side_by_side([first_layer(), positions], [layer], (6, 7), tmp_path):
        assert_close(got, expected, 1e-2)


def test_a_constant_beside_a_map(tmp_path):
    compare(edit.trace(WithConstant(), (1, 3, 6, 7)), tmp_path)


class WithConstant(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.constant, self.concat = ops.Constant(torch.rand(1, 2, 6, 7)), ops.Concat(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.concat(self.constant(x), x)


def test_every_class_of_the_vocabulary_has_a_lowering():
    assert set(OPERATORS) - {nn.BatchNorm2d, *WRITTEN_OUT} == set(lowering.LOWERINGS)


@pytest.mark.parametrize(
    "layer",
    [nn.MaxPool2d(2, dilation=2), nn.AvgPool2d(2, divisor_override=3)],
    ids=repr,
)
def test_what_cannot_be_said_is_named(tmp_path, layer):
    with pytest.raises(Unsupported, match=r"_1\b"):
        compare(chain(layer), tmp_path)
