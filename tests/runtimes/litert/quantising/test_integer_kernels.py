"""Operators that the quantiser leaves in float32 compute in int8, and give the numbers that they gave."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from slimseg.graph import edit, ops
from slimseg.runtimes.litert.quantising import integer_kernels, quantizer
from slimseg.runtimes.litert.session import predict
from slimseg.runtimes.litert.writing import writer
from slimseg.tflite import file

IMAGES = np.random.default_rng(0).standard_normal((4, 16, 20, 3), np.float32)
CONVERSIONS = {"QUANTIZE", "DEQUANTIZE"}


class Around(nn.Module):
    """A layer between convolutions; what it gives is read twice, once by a concatenation."""

    def __init__(self, *layers: nn.Module, channels: int = 8) -> None:
        super().__init__()
        self.before, self.layers = nn.Conv2d(3, 8, 3, 1, 1), nn.Sequential(*layers)
        self.after, self.join = nn.Conv2d(channels, 4, 3, 1, 1), ops.Concat(1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.layers(self.before(x))
        return self.join(y, self.after(y))


class Straight(Around):
    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.layers(self.before(x)))


LAYERS = {
    "DEPTH_TO_SPACE": lambda: (ops.DepthToSpace(2), 2),
    "LEAKY_RELU": lambda: (nn.LeakyReLU(0.1), 8),
    "ELU": lambda: (nn.ELU(), 8),
}


@pytest.fixture(params=[Straight, Around])
def kind(request: pytest.FixtureRequest) -> type[Around]:
    return request.param  # type: ignore[no-any-return]


def written(kind: type[Around], op: str, path: Path) -> Path:
    torch.manual_seed(0)
    layer, channels = LAYERS[op]()
    writer.write(edit.trace(kind(layer, channels=channels).eval(), (1, 3, 16, 20)), path)
    return path


def quantised(path: Path, out: Path, leave: tuple[str, ...] = ()) -> Path:
    ranges = quantizer.measure_ranges(path, list(IMAGES))
    file.save(quantizer._quantise(str(path), "int8", ranges, "float32", leave), out)
    return out


def kernels(path: Path) -> dict[str, str]:
    return {each.op: each.dtype for each in file.operators(path)}


@pytest.mark.parametrize("op", LAYERS)
def test_in_int8_with_the_same_numbers(
    op: str, kind: type[Around], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(kind, op, tmp_path / "float.tflite")
    new = quantised(path, tmp_path / "int8.tflite")
    monkeypatch.setattr(integer_kernels, "use", lambda *_: None)
    old = quantised(path, tmp_path / "islands.tflite")
    assert (kernels(old)[op], kernels(new)[op]) == ("float32", "int8")
    islands, integers = (sum(each.op in CONVERSIONS for each in file.operators(each)) for each in (old, new))
    assert integers < islands
    before, after = predict(old, IMAGES), predict(new, IMAGES)
    # One step in the last place: the integer kernel of a curve rounds its table, a conversion to another range once.
    step = np.unique(np.diff(np.unique(before))).min()
    assert np.abs(after - before).max() <= (0 if op == "DEPTH_TO_SPACE" and kind is Straight else 12 * step)
    assert np.abs(after - before).mean() < 0.6 * step


def test_the_name_stays(tmp_path: Path) -> None:
    path = written(Straight, "DEPTH_TO_SPACE", tmp_path / "float.tflite")
    new = quantised(path, tmp_path / "int8.tflite")
    names = [[each.name for each in file.operators(one) if each.op == "DEPTH_TO_SPACE"] for one in (path, new)]
    assert names[0] == names[1]


def test_what_is_kept_in_float_stays_there(tmp_path: Path) -> None:
    path = written(Straight, "LEAKY_RELU", tmp_path / "float.tflite")
    name = next(each.name for each in file.operators(path) if each.op == "LEAKY_RELU")
    assert kernels(quantised(path, tmp_path / "int8.tflite", (name,)))["LEAKY_RELU"] == "float32"


def test_an_output_stays_in_float(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1), ops.DepthToSpace(2))
    writer.write(edit.trace(net.eval(), (1, 3, 16, 20)), tmp_path / "float.tflite")
    new = quantised(tmp_path / "float.tflite", tmp_path / "int8.tflite")
    assert file.read(new).outputs[0].dtype == "float32"
    assert np.abs(predict(new, IMAGES) - predict(tmp_path / "float.tflite", IMAGES)).mean() < 0.02


def test_an_output_in_int8_is_the_operators_own(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1), ops.DepthToSpace(2))
    writer.write(edit.trace(net.eval(), (1, 3, 16, 20)), tmp_path / "float.tflite")
    quantizer.quantize_int8(tmp_path / "float.tflite", tmp_path / "int8.tflite", list(IMAGES), io="int8")
    found = file.read(tmp_path / "int8.tflite")
    assert [each.op for each in found.operators] == ["CONV_2D", "DEPTH_TO_SPACE"]
    assert found.outputs[0].dtype == "int8"
    assert found.outputs[0].name == file.read(tmp_path / "float.tflite").outputs[0].name
    assert predict(tmp_path / "int8.tflite", IMAGES).shape == (4, 32, 40, 2)


def test_ranges_go_with_what_is_moved(tmp_path: Path) -> None:
    path = written(Straight, "DEPTH_TO_SPACE", tmp_path / "float.tflite")
    model = file.parse(path.read_bytes(), path)
    moved = next(each for each in file.operators(path) if each.op == "DEPTH_TO_SPACE")
    before = next(each.name for each in file.operators(path) if each.outputs == moved.inputs)
    found = integer_kernels.with_kept_ranges(model, {before: (-1.0, 2.0), moved.name: (-0.5, 0.5), "other": (0.0, 1.0)})
    assert found == {before: (-1.0, 2.0), moved.name: (-1.0, 2.0), "other": (0.0, 1.0)}


@pytest.mark.parametrize("op", ["PADV2", "PAD"])
def test_a_padded_max_pool(op: str, tmp_path: Path) -> None:
    """Its border is minus infinity, which 8 bits do not have; where the least value is zero, a plain PAD is enough."""
    torch.manual_seed(0)
    before = (nn.Hardtanh(0, 1),) if op == "PAD" else ()
    net = nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1), *before, nn.MaxPool2d(3, 2, 1), nn.Conv2d(8, 4, 1))
    writer.write(edit.trace(net.eval(), (1, 3, 16, 20)), tmp_path / "float.tflite")
    new = quantised(tmp_path / "float.tflite", tmp_path / "int8.tflite")
    assert {each.op: each.dtype for each in file.operators(new)}[op] == "int8"
    assert sum(each.op in CONVERSIONS for each in file.operators(new)) == 2
    expected, got = predict(tmp_path / "float.tflite", IMAGES), predict(new, IMAGES)
    assert np.abs(expected - got).mean() < 0.025 * expected.std()


@pytest.mark.parametrize(("value", "dtype"), [(0.5, "int8"), (50.0, "float32")])
def test_a_border_of_any_value(value: float, dtype: str, tmp_path: Path) -> None:
    """A value outside the range of the map stays exact, in float32."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1), ops.Pad((1, 1, 1, 1), value), nn.Conv2d(8, 4, 1))
    writer.write(edit.trace(net.eval(), (1, 3, 16, 20)), tmp_path / "float.tflite")
    new = quantised(tmp_path / "float.tflite", tmp_path / "int8.tflite")
    assert kernels(new)["PADV2"] == dtype
    expected, got = predict(tmp_path / "float.tflite", IMAGES), predict(new, IMAGES)
    assert np.abs(expected - got).mean() < 0.025 * expected.std()
