"""Activations that stand alone, poolings and resizes stay on XNNPACK in int8, and give the same numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from slimseg.frontends import load
from slimseg.graph import edit, ops
from slimseg.runtimes import child
from slimseg.runtimes.litert.profiling.profiler import profile
from slimseg.runtimes.litert.quantising import quantizer, spelling
from slimseg.runtimes.litert.quantising.spelling import maps
from slimseg.runtimes.litert.session import predict
from slimseg.runtimes.litert.writing import writer
from slimseg.tflite import file


class ActivationFirst(nn.Module):
    """A residual unit whose sum is read both as it is and through its activation."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.first, self.act, self.second, self.sum = (
            nn.Conv2d(3, 8, 3, 2, 1),
            activation,
            nn.Conv2d(8, 8, 1),
            ops.Add(),
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        return self.sum(y, self.second(self.act(y)))


LONE = {"RELU", "RELU6", "RELU_N1_TO_1", "HARD_SWISH"}


@pytest.fixture(params=[nn.ReLU(), nn.ReLU6(), nn.Hardtanh(-1, 1), nn.Hardswish()], ids=repr)
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    torch.manual_seed(0)
    writer.write(edit.trace(ActivationFirst(request.param).eval(), (1, 3, 16, 20)), tmp_path / "m.tflite")
    return tmp_path / "m.tflite"


def test_no_activation_stands_alone_in_int8(path: Path, tmp_path: Path) -> None:
    images = np.random.default_rng(0).standard_normal((4, 16, 20, 3), np.float32)
    assert LONE & {each.op for each in file.operators(path)}
    quantizer.quantize_int8(path, tmp_path / "int8.tflite", list(images))
    assert not LONE & {each.op for each in file.operators(tmp_path / "int8.tflite")}
    expected, got = predict(path, images), predict(tmp_path / "int8.tflite", images)
    assert np.abs(expected - got).mean() < 0.03 * expected.std()


def test_the_float_file_computes_the_same(path: Path, tmp_path: Path) -> None:
    model = file.parse(path.read_bytes(), path)
    added = spelling.for_int8(model)
    assert spelling.for_int8(model) == {}  # a second time finds nothing
    file.save(file.pack(model), tmp_path / "spelled.tflite")
    images = np.random.default_rng(0).standard_normal((2, 16, 20, 3), np.float32)
    expected, got = predict(path, images), predict(tmp_path / "spelled.tflite", images)
    np.testing.assert_allclose(got, expected, atol=1e-6 if added else 0)
    assert [each.op for each in file.operators(tmp_path / "spelled.tflite")].count("MUL") == (2 if added else 1)


def prelu(low: float, high: float) -> nn.PReLU:
    layer = nn.PReLU(8)
    nn.init.uniform_(layer.weight, low, high)
    return layer


SPELLED = {
    "pool 2x2": lambda: nn.AvgPool2d(2),
    "padded pool 3x3": lambda: nn.AvgPool2d(3, 1, 1),
    "pool 7x7": lambda: nn.AvgPool2d(7, 3, 3),
    "nearest x2": lambda: ops.Resize((32, 40), "nearest"),
    "nearest x2, x3": lambda: ops.Resize((32, 60), "nearest-exact"),
    "columns x4": lambda: ops.Resize((16, 80), "nearest"),
    "rows x2": lambda: ops.Resize((32, 20), "nearest"),
    "clamp to 0 and 1": lambda: nn.Hardtanh(0, 1),
    "slopes": lambda: prelu(0.0, 0.7),
    "slopes of both signs": lambda: prelu(-0.3, 1.5),
    "one slope": lambda: nn.PReLU(),
}
KEPT = {
    "mean without the padding": lambda: nn.AvgPool2d(3, 1, 1, count_include_pad=False),
    "nearest x1.5": lambda: ops.Resize((24, 30), "nearest"),
}
IMAGES = np.random.default_rng(0).standard_normal((4, 16, 20, 3), np.float32)


def between_convolutions(layer: nn.Module, folder: Path) -> Path:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1), layer, nn.Conv2d(8, 5, 1))
    writer.write(edit.trace(net.eval(), (1, 3, 16, 20)), folder / "float.tflite")
    return folder / "float.tflite"


@pytest.mark.parametrize("name", SPELLED)
def test_xnnpack_runs_all_of_it_in_int8(name: str, tmp_path: Path) -> None:
    path, new = between_convolutions(SPELLED[name](), tmp_path), tmp_path / "int8.tflite"
    quantizer.quantize_int8(path, new, list(IMAGES))
    found = profile(new, runs=1, within=child.shared(), with_roofs=False)
    assert not found.fallbacks
    assert not found.islands
    expected, got = predict(path, IMAGES), predict(new, IMAGES)
    assert np.abs(expected - got).mean() < 0.025 * expected.std()


def spelled_and_plain(path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """The results of the int8 file, and of the one with the original operators."""
    ranges, found = quantizer.measure_ranges(path, list(IMAGES)), []
    for name, spellers in (("spelled", spelling._SPELLERS), ("plain", {})):
        monkeypatch.setattr(spelling, "_SPELLERS", spellers)
        file.save(quantizer._quantise(str(path), "int8", ranges, "float32", ()), folder / f"{name}.tflite")
        found.append(predict(folder / f"{name}.tflite", IMAGES))
    return found


@pytest.mark.parametrize("name", [each for each in SPELLED if "x" in each and "pool" not in each])
def test_copied_pixels_are_the_same_bytes(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = between_convolutions(SPELLED[name](), tmp_path)
    np.testing.assert_array_equal(*spelled_and_plain(path, tmp_path, monkeypatch))


@pytest.mark.parametrize("name", KEPT)
def test_what_is_better_left_alone(name: str, tmp_path: Path) -> None:
    path, new = between_convolutions(KEPT[name](), tmp_path), tmp_path / "int8.tflite"
    quantizer.quantize_int8(path, new, list(IMAGES))
    middle = file.operators(path)[1].op
    assert middle in {each.op for each in file.operators(new)}


def test_layers_keep_their_names(tmp_path: Path) -> None:
    path, new = between_convolutions(SPELLED["nearest x2"](), tmp_path), tmp_path / "int8.tflite"
    quantizer.quantize_int8(path, new, list(IMAGES))
    (layer,) = {each.name for each in file.operators(path) if each.op == "RESIZE_NEAREST_NEIGHBOR"}
    spelled = [each for each in file.operators(new) if each.op in ("CONCATENATION", "RESHAPE")]
    assert [layer in (each.name, *each.covers) for each in spelled] == [True] * 4


def test_means_of_many_values_have_their_own_range(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    path, net = tmp_path / "float.tflite", nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1), nn.AvgPool2d(16, 4))
    writer.write(edit.trace(net.eval(), (1, 3, 16, 20)), path)
    expected = predict(path, IMAGES)
    errors = [np.abs(got - expected).mean() for got in spelled_and_plain(path, tmp_path, monkeypatch)]
    assert errors[0] < 0.7 * errors[1]


def test_stages_of_large_windows() -> None:
    assert maps._stages((5, 5), (2, 2)) == [((5, 5), (2, 2))]
    assert maps._stages((9, 9), (4, 4)) == [((9, 1), (4, 1)), ((1, 9), (1, 4))]
    assert maps._stages((30, 20), (30, 20)) == [((2, 1), (2, 1)), ((15, 1), (15, 1)), ((1, 20), (1, 20))]
    assert maps._stages((30, 30), (15, 15)) is None
    assert maps._stages((29, 29), (29, 29)) is None


class Parts(nn.Module):
    """Sums two channels, each without its dimension of length 1."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last = nn.Conv2d(3, 2, 3, 1, 1), nn.Conv2d(1, 5, 1)
        self.first, self.second = ops.Slice(1, 0, 1), ops.Slice(1, 1, 2)
        self.one, self.other = (ops.Reshape((1, 16, 20), channels_last=False) for _ in range(2))
        self.add, self.multiply, self.back = ops.Add(), ops.Multiply(), ops.Reshape((1, 1, 16, 20), False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        a, b = self.one(self.first(y)), self.other(self.second(y))
        return self.last(self.back(self.add(a, self.multiply(b, a))))


def test_slices_that_drop_a_dimension(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    path = tmp_path / "float.tflite"
    writer.write(edit.trace(Parts().eval(), (1, 3, 16, 20)), path)
    assert "STRIDED_SLICE" in {each.op for each in file.operators(path)}
    np.testing.assert_array_equal(*spelled_and_plain(path, tmp_path, monkeypatch))
    found = profile(tmp_path / "spelled.tflite", runs=1, within=child.shared(), with_roofs=False)
    assert not found.fallbacks


class ClassToken(nn.Module):
    """A vision transformer's beginning: a token that is the same for every image goes before the patches."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.linear = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 8)
        self.token = nn.Parameter(torch.randn(1, 1, 8))

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(x.shape[0], -1, -1), tokens], 1)
        mixed = self.linear(tokens)
        return (mixed[:, 1:] + mixed[:, :1]).transpose(1, 2).unflatten(2, (4, 5))


def test_a_constant_beside_values(tmp_path: Path) -> None:
    torch.manual_seed(0)
    images = np.random.default_rng(0).standard_normal((4, 16, 20, 3), np.float32)
    path, quantised = tmp_path / "m.tflite", tmp_path / "int8.tflite"
    writer.write(load(ClassToken().eval(), (16, 20)), path)
    quantizer.quantize_int8(path, quantised, list(images))
    assert "DEQUANTIZE" not in {each.op for each in file.operators(quantised)[:-1]}
    expected, got = predict(path, images), predict(quantised, images)
    assert np.abs(expected - got).mean() < 0.05 * expected.std()
