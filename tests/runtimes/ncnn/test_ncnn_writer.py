"""The ncnn writer against PyTorch, over the settings of every layer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from slimseg import load, models
from slimseg.errors import Unsupported
from slimseg.graph import edit, ops
from slimseg.graph.graph import Graph
from slimseg.runtimes.ncnn import file, writer
from slimseg.runtimes.ncnn.session import Session

quick = settings(
    max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
sides = st.tuples(st.integers(5, 13), st.integers(5, 13))
pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))


def kinds(path: Path) -> list[str]:
    """Of the layers of a `.param`, without the input."""
    return [layer.kind for layer in file.read(path).layers[1:]]


def compare(graph: Graph, folder: Path, tolerance: float = 1e-4, positive: bool = False) -> list[str]:
    """Write, run, compare with PyTorch; returns the kinds of the file's layers."""
    artefact = writer.write(graph, folder)
    image = torch.randn(graph.input_shape, generator=torch.Generator().manual_seed(1))
    image = image.abs() + 0.1 if positive else image
    with torch.no_grad():
        expected = graph(image).numpy()
    got = Session(artefact.param).run(image.permute(0, 2, 3, 1).numpy())
    assert got.shape[1:] == artefact.output_shape
    got = got.transpose(0, 3, 1, 2) if got.ndim == 4 else got
    np.testing.assert_allclose(got, expected, atol=tolerance * max(1.0, float(np.abs(expected).max())))
    return kinds(artefact.param)


def chain(*layers: nn.Module, channels: int = 4, size: tuple[int, int] = (9, 12)) -> Graph:
    return edit.trace(nn.Sequential(*layers).eval(), (1, channels, *size))


@quick
@given(
    size=sides,
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 5)),
    stride=pairs,
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    dilation=pairs,
    groups=st.sampled_from([1, 2, 8]),
    multiplier=st.integers(1, 2),
    bias=st.booleans(),
    activation=st.sampled_from([None, nn.ReLU(), nn.ReLU6(), nn.LeakyReLU(0.1), nn.Sigmoid(), nn.Hardswish()]),
)
def test_convolution(tmp_path, size, kernel, stride, padding, dilation, groups, multiplier, bias, activation):
    assume(all((k - 1) * d + 1 <= n + 2 * p for n, k, p, d in zip(size, kernel, padding, dilation, strict=True)))
    layer = nn.Conv2d(8, 8 * multiplier, kernel, stride, padding, dilation, groups, bias)
    layers = [layer] if activation is None else [layer, activation]
    found = compare(chain(*layers, channels=8, size=size), tmp_path)
    assert len(found) == 1 or found[0] == "Scale", "an activation is fused"


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
    relu=st.booleans(),
)
def test_transposed_convolution(tmp_path, size, kernel, stride, padding, extra, dilation, groups, crop, relu):
    assume(all(e < max(s, d) and p < k for e, s, p, k, d in zip(extra, stride, padding, kernel, dilation, strict=True)))
    layer = ops.CroppedConvTranspose2d(4, 8, kernel, stride, padding, extra, groups, True, dilation, crop=crop)
    layers = [layer, nn.ReLU()] if relu else [layer]
    (kind,) = compare(chain(*layers, size=size), tmp_path)
    assert kind == ("Deconvolution" if groups == 1 else "DeconvolutionDepthWise")


@quick
@given(
    size=sides,
    kernel=pairs,
    stride=pairs,
    padding=st.tuples(st.integers(0, 1), st.integers(0, 1)),
    kind=st.sampled_from(["max", "max, ceil", "average", "average, uncounted", "average, uncounted, ceil"]),
)
def test_pooling(tmp_path, size, kernel, stride, padding, kind):
    assume(all(2 * p <= k for p, k in zip(padding, kernel, strict=True)))
    ceil = "ceil" in kind
    if kind.startswith("max"):
        pool: nn.Module = nn.MaxPool2d(kernel, stride, padding, ceil_mode=ceil)
    else:
        pool = nn.AvgPool2d(kernel, stride, padding, ceil, count_include_pad="uncounted" not in kind)
    assert compare(chain(pool, size=size), tmp_path) == ["Pooling"]


@pytest.mark.parametrize("size", [(1, 1), (3, 4), (2, 5)])
def test_adaptive_pooling(tmp_path, size):
    compare(chain(nn.AdaptiveAvgPool2d(size), nn.Conv2d(4, 3, 1)), tmp_path)


MADE_OF_OTHERS = [("bilinear", "asymmetric"), ("nearest", "align_corners"), ("nearest-exact", "half_pixel")]


@quick
@given(
    size=sides,
    to=st.tuples(st.integers(2, 30), st.integers(2, 30)),
    how=st.sampled_from(
        [
            ("bilinear", "half_pixel"),
            ("bilinear", "align_corners"),
            ("bilinear", "asymmetric"),
            ("nearest", "align_corners"),
            ("nearest", "half_pixel"),
            ("nearest-exact", "half_pixel"),
        ]
    ),
)
def test_resize(tmp_path, size, to, how):
    found = compare(chain(ops.Resize(to, *how), nn.ReLU(), size=size), tmp_path)
    if how not in MADE_OF_OTHERS and size != to:
        assert found == ["Interp", "ReLU"]


@pytest.mark.parametrize("coordinates", ["half_pixel", "align_corners", "asymmetric"])
@pytest.mark.parametrize("size", [(1, 1), (1, 6), (6, 1)])
def test_resize_of_a_side_of_one_pixel(tmp_path, size, coordinates):
    compare(chain(ops.Resize((7, 9), "bilinear", coordinates), nn.ReLU(), size=size), tmp_path)


ACTIVATIONS = [
    nn.ReLU(),
    nn.ReLU6(),
    nn.Hardtanh(-0.5, 0.7),
    nn.LeakyReLU(0.2),
    nn.PReLU(4, 0.3),
    nn.PReLU(1, 0.3),
    nn.Hardswish(),
    nn.Hardsigmoid(),
    nn.SiLU(),
    nn.Sigmoid(),
    nn.Tanh(),
    nn.GELU(),
    nn.GELU("tanh"),
    nn.ELU(0.8),
    nn.Softmax(1),
    nn.Softmax(3),
]


@pytest.mark.parametrize("layer", ACTIVATIONS, ids=repr)
def test_activation(tmp_path, layer):
    assert len(compare(chain(layer), tmp_path)) == 1
    (tmp_path / "pooled").mkdir()
    compare(chain(nn.AdaptiveAvgPool2d(1), layer, nn.Conv2d(4, 5, 1)), tmp_path / "pooled")


def test_slopes_of_every_value(tmp_path):
    slopes = torch.randn(4, 9, 12, generator=torch.Generator().manual_seed(0))
    compare(chain(ops.SpatialPReLU(slopes)), tmp_path)


@pytest.mark.parametrize("function", sorted({*ops.Unary.FUNCTIONS} - {"sign"}))
def test_function(tmp_path, function):
    assert compare(chain(ops.Unary(function)), tmp_path, positive=True) == ["UnaryOp"]


def test_the_sign_of_a_value(tmp_path):
    rounded = chain(ops.Affine(torch.tensor(2.0)), ops.Unary("floor"), ops.Unary("sign"))  # zeros, too
    assert compare(rounded, tmp_path)[-1] == "BinaryOp"


def test_a_constant_beside_a_map(tmp_path):
    class WithConstant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.constant, self.concat = ops.Constant(torch.rand(1, 2, 6, 7)), ops.Concat(1)

        def forward(self, x: Tensor) -> Tensor:
            return self.concat(self.constant(x), x)

    assert compare(edit.trace(WithConstant(), (1, 3, 6, 7)), tmp_path) == ["MemoryData", "Concat"]


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (ops.Affine(torch.tensor(2.0)), ["BinaryOp"]),
        (ops.Affine(None, torch.tensor(-1.5)), ["BinaryOp"]),
        (ops.Affine(torch.tensor(2.0), torch.tensor(0.5)), ["Scale"]),
        (ops.Affine(torch.rand(4, 1, 1)), ["Scale"]),
        (ops.Affine(None, torch.rand(4, 1, 1)), ["Bias"]),
        (ops.Affine(torch.rand(4, 9, 12), torch.rand(12)), ["MemoryData", "BinaryOp", "MemoryData", "BinaryOp"]),
    ],
)
def test_affine(tmp_path, layer, expected):
    assert compare(chain(layer), tmp_path) == expected


@pytest.mark.parametrize(
    "layer",
    [
        ops.Pad((1, 2, 0, 3), 0.5),
        ops.Pad((-1, 2, -2, 0)),
        ops.Pad((-1, -2, -2, 0)),
        ops.Pad((0, 0, 0, 0), 0.0, (1, 3)),
        ops.Pad((1, 0, 0, 1), 0.0, (-1, 3)),
        ops.Slice(1, 1, 3),
        ops.Slice(2, 0, 4),
        ops.Slice(3, 1, 10, 3),
        ops.Slice(2, 2, 9, 2),
        ops.DepthToSpace(2),
        nn.Sequential(nn.Conv2d(4, 8, 1), ops.DepthToSpace(2)),
        ops.SpaceToDepth(3),
        ops.Transpose((0, 2, 3, 1)),
        ops.Transpose((0, 3, 1, 2)),
        ops.Transpose((0, 1, 3, 2)),
        ops.Reshape((1, -1)),
        ops.Reshape((1, -1), channels_last=False),
        ops.Reshape((1, 12, 6, 6)),
        ops.Reshape((1, 12, 6, 6), channels_last=False),
        ops.Reshape((1, 108, 4)),
        nn.Sequential(nn.Conv2d(4, 1, 1), ops.Reshape((1, -1))),
        nn.Sequential(ops.Reshape((1, -1)), nn.Linear(432, 7), nn.ReLU()),
        nn.Sequential(nn.AdaptiveAvgPool2d(1), ops.Reshape((1, -1)), nn.Linear(4, 7)),
        ops.Reduce("mean", (2, 3), True),
        ops.Reduce("mean", (2, 3), False),
        ops.Reduce("max", (2, 3), True),
        ops.Reduce("sum", (1,), True),
        ops.Reduce("min", (1,), False),
        ops.Reduce("max", (3,), True),
        nn.BatchNorm2d(4),
        ops.Normalise((1,), 1e-5),
        ops.Normalise((3,), 1e-5),
        ops.Normalise((2, 3), 0.1),
        ops.Normalise((1, 2, 3), 0.1, groups=2),
        ops.Normalise((1,), 1e-5, centred=False),
        nn.Sequential(ops.Reshape((1, 108, 4)), ops.Normalise((2,), 1e-5), nn.Linear(4, 3)),
        nn.Linear(12, 5),
        nn.Sequential(nn.AdaptiveAvgPool2d(1), ops.Resize((5, 6))),
    ],
    ids=repr,
)
def test_layer(tmp_path, layer):
    compare(chain(layer, nn.ReLU()) if not isinstance(layer, nn.Sequential) else chain(*layer), tmp_path)


@pytest.mark.parametrize("dims", [(0, 2, 1, 3, 4), (0, 4, 3, 2, 1), (0, 3, 4, 1, 2), (0, 1, 2, 4, 3), (0, 2, 3, 4, 1)])
def test_transposing_four_dimensions(tmp_path, dims):
    layers = ops.Reshape((1, 2, 2, 9, 12), False), ops.Transpose(dims), ops.Reshape((1, 4, 12, 9), False)
    assert "Permute" in compare(chain(*layers), tmp_path) or dims == (0, 2, 1, 3, 4)


@pytest.mark.parametrize(("start", "stop", "step"), [(0, 8, 2), (1, 8, 2), (0, 7, 3), (2, 8, 3), (1, 8, 5), (7, 8, 4)])
def test_every_second_channel(tmp_path, start, stop, step):
    compare(chain(ops.Slice(1, start, stop, step), channels=8), tmp_path)


@pytest.mark.parametrize("dims", [(0, 1, 3, 2, 4, 5), (0, 1, 3, 5, 2, 4), (0, 5, 3, 1, 2, 4), (3, 1, 0, 2, 4, 5)])
def test_transposing_five_dimensions(tmp_path, dims):
    shape = (1, 2, 3, 5, 4, 6)
    layers = ops.Reshape(shape, False), ops.Transpose(dims), ops.Reshape((1, 2, 20, 18), False)
    found = compare(chain(*layers, channels=6, size=(10, 12)), tmp_path)
    assert found.count("Permute") <= 2


def test_transposing_nine_dimensions(tmp_path):
    layers = ops.Reshape((1, *[2] * 9), False), ops.Transpose((0, *range(9, 0, -1))), ops.Reshape((1, 8, 8, 8), False)
    assert compare(chain(*layers, channels=8, size=(8, 8)), tmp_path).count("Permute") <= 8


class WindowAttention(nn.Module):
    """Attention within windows of 4x4 pixels, shifted ones with a mask, as in Swin."""

    def __init__(self, channels: int = 8, heads: int = 2, shift: int = 0) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, channels, 1), nn.LayerNorm(channels)
        self.qkv, self.out = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)
        self.bias = nn.Parameter(torch.randn(heads, 16, 16))
        self.register_buffer("mask", torch.where(torch.rand(6, 1, 16, 16) < 0.3, -100.0, 0.0))
        self.heads, self.shift = heads, shift

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x).permute(0, 2, 3, 1))
        _, height, width, channels = x.shape
        x = torch.roll(x, (-self.shift, -self.shift), (1, 2)) if self.shift else x
        x = x.view(1, height // 4, 4, width // 4, 4, channels).transpose(2, 3).reshape(-1, 16, channels)
        qkv = self.qkv(x).view(-1, 16, 3, self.heads, channels // self.heads).permute(2, 0, 3, 1, 4)
        scores = qkv[0] @ qkv[1].mT * 0.5 + self.bias
        scores = (scores + self.mask if self.shift else scores).softmax(-1)
        x = self.out((scores @ qkv[2]).transpose(1, 2).flatten(2))
        x = x.view(1, height // 4, width // 4, 4, 4, channels).transpose(2, 3).reshape(1, height, width, channels)
        return x.permute(0, 3, 1, 2)


@pytest.mark.parametrize("shift", [0, 2])
def test_windows_of_attention_are_an_outer_dimension(tmp_path, shift):
    torch.manual_seed(0)
    compare(load(WindowAttention(shift=shift).eval(), (8, 12)), tmp_path)


def test_more_dimensions_than_a_mat_has(tmp_path):
    shape, terms = (2, 2, 3, 4, 3, 12), ops.Multiply()
    rows = nn.Sequential(ops.Reshape(shape, False), ops.Slice(5, 2, 3))
    columns = nn.Sequential(ops.Reshape(shape, False), ops.Slice(4, 0, 1), nn.ReLU(), nn.Softmax(5))
    graph = edit.trace(Joined(terms, rows, columns).eval(), (1, 16, 9, 12))
    graph = edit.trace(nn.Sequential(graph.module, ops.Reshape((1, 16, 9, 12), False)).eval(), (1, 16, 9, 12))
    compare(graph, tmp_path)


def test_a_batch_of_maps_is_refused_by_layers_of_maps(tmp_path):
    layers = ops.Reshape((2, 2, 9, 12), False), nn.MaxPool2d(2), ops.Reshape((1, 4, 4, 6), False)
    with pytest.raises(Unsupported, match="ncnn has no batch, and MaxPool2d cannot do without"):
        writer.write(chain(*layers), tmp_path)


class Joined(nn.Module):
    """A layer of two inputs, behind a convolution each or what is given."""

    def __init__(self, layer: nn.Module, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.layer, self.first, self.second = layer, first, second

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.first(x), self.second(x))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "layer", [ops.Add(), ops.Subtract(), ops.Multiply(), ops.Maximum(), ops.Minimum(), ops.Concat()]
)
@pytest.mark.parametrize("swapped", [False, True])
def test_two_inputs(tmp_path, layer, swapped):
    convolutions = nn.Conv2d(4, 8, 3, padding=1), nn.Conv2d(4, 8, 1)
    compare(edit.trace(Joined(layer, *convolutions).eval(), (1, 4, 9, 12)), tmp_path)
    if isinstance(layer, ops.Concat):
        return
    for number, gate in enumerate([nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 1, 1), ops.Reduce("mean", (2,), True)]):
        own = (gate, nn.Sigmoid()) if not swapped else (nn.Sigmoid(), gate)
        found = compare(edit.trace(Joined(layer, *own).eval(), (1, 4, 9, 12)), tmp_path / f"{number}")
        assert "Reshape" not in found


@pytest.mark.parametrize("layer", [ops.GridSample("zeros"), ops.GridSample("border", align_corners=True)], ids=repr)
def test_computed_positions(tmp_path, layer):
    positions = nn.Sequential(nn.Conv2d(4, 2, 3), ops.Transpose((0, 2, 3, 1)))
    found = compare(edit.trace(Joined(layer, nn.Conv2d(4, 8, 1), positions).eval(), (1, 4, 9, 12)), tmp_path)
    assert "GridSample" in found


def test_division(tmp_path):
    layers = ops.Divide(), nn.Conv2d(4, 8, 1), nn.Sequential(nn.Conv2d(4, 8, 1), nn.Sigmoid())
    compare(edit.trace(Joined(*layers).eval(), (1, 4, 9, 12)), tmp_path)


@pytest.mark.parametrize("value", [0.0, 0.7])
def test_a_pad_goes_into_its_convolution(tmp_path, value):
    found = compare(chain(ops.Pad((0, 1, 2, 1), value), nn.Conv2d(4, 8, 3, 2)), tmp_path)
    assert found == ["Convolution"]


@pytest.mark.parametrize("last", [False, True])
def test_a_channel_shuffle_is_one_layer(tmp_path, last):
    shapes = ((1, 9, 12, 2, 4), (0, 1, 2, 4, 3)) if last else ((1, 2, 4, 9, 12), (0, 2, 1, 3, 4))
    layers = ops.Reshape(shapes[0], last), ops.Transpose(shapes[1]), ops.Reshape((1, 8, 9, 12), last)
    assert compare(chain(*layers, channels=8), tmp_path) == ["ShuffleChannel"]


class Pieces(nn.Module):
    def __init__(self, *ends: int) -> None:
        super().__init__()
        self.slices = nn.ModuleList(ops.Slice(1, a, b) for a, b in zip((0, *ends), (*ends, 8), strict=True))
        self.concat = ops.Concat()

    def forward(self, x: Tensor) -> Tensor:
        return self.concat(*[piece(x) for piece in reversed(self.slices)])  # type: ignore[no-any-return]


@pytest.mark.parametrize("ends", [(4,), (2, 6), (1, 2, 5)])
def test_slices_of_everything_are_one_layer(tmp_path, ends):
    graph = edit.trace(Pieces(*ends).eval(), (1, 8, 9, 12))
    assert compare(graph, tmp_path) == ["Slice", "Concat"]


@pytest.mark.parametrize("block", ["inverted residual", "residual", "shuffle", "separable"])
def test_a_network_has_no_layer_too_many(tmp_path, block):
    graph = models.build(5, (64, 96), block, 0.5)
    found = compare(graph, tmp_path)
    assert not {"Reshape", "Noop", "Permute", "Crop", "BatchNorm", "Scale"} & set(found)
    layers = file.read(tmp_path / "model.param").layers
    readers = [blob for layer in layers for blob in layer.inputs]
    assert len(readers) == len(set(readers)), "a blob has one reader"
    assert all(len(layer.outputs) > 1 for layer in layers if layer.kind == "Split")


def test_every_node_is_covered_by_a_layer_of_the_file(tmp_path):
    graph = models.build(5, (64, 96), "shuffle", 0.5)
    artefact = writer.write(graph, tmp_path)
    covered = {name for names in artefact.covers.values() for name in names}
    assert covered == {node.name for node in graph.layers()}
    assert set(artefact.covers) == {
        layer.name for layer in file.read(artefact.param).layers[1:] if layer.kind != "Split"
    }


def test_half_precision_halves_the_weights(tmp_path):
    graph = models.build(5, (64, 96))
    full, half = (writer.write(graph, tmp_path, kind, kind) for kind in ("fp32", "fp16"))
    assert half.bin.stat().st_size < 0.52 * full.bin.stat().st_size
    image = np.random.default_rng(0).normal(size=(64, 96, 3))
    first, second = (Session(each.param).run(image) for each in (full, half))
    assert 0 < np.abs(first - second).max() < 0.01 * np.abs(first).max()


def test_a_weight_beyond_half_precision_stays_as_it_is(tmp_path):
    layer = nn.Conv2d(3, 4, 1)
    with torch.no_grad():
        layer.weight[0, 0] = 1e5
    graph = chain(layer, channels=3)
    artefact = writer.write(graph, tmp_path, "fp16")
    got = Session(artefact.param).run(np.ones((9, 12, 3)))
    np.testing.assert_allclose(got[0, 0, 0], graph(torch.ones(1, 3, 9, 12))[0, :, 0, 0].detach(), rtol=1e-5)


def test_a_network_that_ends_in_classes_is_written_up_to_the_scores(tmp_path):
    graph = chain(nn.Conv2d(4, 3, 1), nn.Softmax(1), ops.ArgMax(), ops.Cast("int32"))
    artefact = writer.write(graph, tmp_path)
    assert kinds(artefact.param) == ["Convolution", "Softmax"]
    assert artefact.description.output_kind == "probabilities"
    assert artefact.output_shape == (9, 12, 3)
    image = torch.randn(1, 4, 9, 12)
    scores = Session(artefact.param).run(image.permute(0, 2, 3, 1).numpy())
    assert np.array_equal(scores.argmax(-1), graph(image).numpy())


def test_the_output_may_be_read_again(tmp_path):
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.add = nn.Conv2d(4, 4, 1), ops.Add()

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            return self.add(y, y)  # type: ignore[no-any-return]

    assert compare(edit.trace(Twice().eval(), (1, 4, 9, 12)), tmp_path) == ["Convolution", "Split", "BinaryOp"]


def test_names_that_look_like_those_of_copies(tmp_path):
    """Keras calls its second pooling layer pool_1 and its copies' like may not be confused with it."""

    class Confusing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pool, self.pool_copy, self.pool_split, self.pool_copy_2 = (nn.Conv2d(4, 4, 1) for _ in range(4))
            self.out0, self.concat = nn.Conv2d(4, 4, 1), ops.Concat()

        def forward(self, x: Tensor) -> Tensor:
            y = self.pool(x)
            z = self.pool_copy(y)
            return self.concat(self.out0(self.pool_split(z)), self.pool_copy_2(y), z, y)  # type: ignore[no-any-return]

    compare(edit.trace(Confusing().eval(), (1, 4, 9, 12)), tmp_path)
    layers = file.read(tmp_path / "model.param").layers
    for names in ([layer.name for layer in layers], [blob for layer in layers for blob in layer.outputs]):
        assert len(names) == len(set(names))
    assert {"pool", "pool_copy", "pool_split", "pool_copy_2", "out0"} < {layer.name for layer in layers}


REFUSED = [
    (nn.MaxPool2d(2, 1, dilation=2), ops.Cast("int64")),
    (ops.Resize((1, 8), "bilinear", "align_corners"), ops.Cast("int32")),
    (ops.Cast("int32"),),
    (ops.ArgMax(), ops.Reshape((1, 1, 9, 12), False), ops.Cast("float32"), nn.ReLU()),
]


@pytest.mark.parametrize("layers", REFUSED)
def test_what_ncnn_cannot_say_is_refused_in_one_sentence(tmp_path, layers):
    with pytest.raises(Unsupported, match="ncnn") as raised:
        writer.write(chain(*layers), tmp_path)
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir())


class Summed(nn.Module):
    """A network with one opaque node."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.slice = nn.Conv2d(3, 8, 3), ops.Slice(1, 2, 7)

    def forward(self, x: Tensor) -> Tensor:
        return self.slice(self.conv(x).logcumsumexp(2))  # type: ignore[no-any-return]


@pytest.fixture
def summed() -> Graph:
    graph = load(Summed(), (16, 24), name="summed")
    assert graph.opaque()
    return graph


def test_an_opaque_node_is_named(tmp_path, summed):
    with pytest.raises(Unsupported, match=r"summed has layers that slimseg cannot write for ncnn \(.*logcumsumexp.*\)"):
        writer.write(summed, tmp_path)
    assert not list(tmp_path.iterdir())
