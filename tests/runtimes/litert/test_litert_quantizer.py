"""Static int8: close to the float file, smaller, description kept, cheap enough to price hundreds of edits."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from slimseg.errors import DataError, ModelError, OutputError
from slimseg.runtimes.litert import file
from slimseg.runtimes.litert.quantizer import measure_ranges, quantize_int8
from slimseg.runtimes.litert.session import predict


def images(count: int, shape: tuple[int, ...] = (32, 32, 4)) -> np.ndarray:
    return np.random.default_rng(2).standard_normal((count, *shape), np.float32)


@pytest.mark.parametrize("io", ["float32", "int8"])
def test_close_to_float(tiny: Path, tmp_path: Path, io: str) -> None:
    path = tmp_path / "int8.tflite"
    quantize_int8(tiny, path, list(images(4)), io=io)  # type: ignore[arg-type]
    found = file.read(path)
    assert found.inputs[0].dtype == found.outputs[0].dtype == io
    assert next(each for each in found.operators if each.op == "CONV_2D").dtype == "int8"
    assert found.description == file.read_description(tiny)
    expected, got = predict(tiny, images(3)), predict(path, images(3))
    assert np.abs(expected - got).mean() < 0.03 * expected.std()
    assert np.abs(expected - got).max() > 0


def test_ranges_are_means_over_samples(tiny: Path) -> None:
    samples = images(3)
    ranges = measure_ranges(tiny, list(samples))
    assert set(ranges) == {"x", "conv", "both"}
    assert ranges["x"] == pytest.approx((samples.min((1, 2, 3)).mean(), samples.max((1, 2, 3)).mean()))
    assert ranges["conv"] == ranges["both"]
    assert ranges["conv"][0] == 0


def test_given_ranges_win(tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "int8.tflite"
    quantize_int8(tiny, path, [images(1)], io="int8", ranges={"x": (-12.7, 12.7)})
    assert file.read(path).inputs[0].scale == pytest.approx(0.1, rel=0.02)


def test_an_old_file_without_signature(shared: Path, tmp_path: Path) -> None:
    source, path = shared / "models" / "prisma-net.tflite", tmp_path / "int8.tflite"
    quantize_int8(source, path, [np.random.default_rng(0).random((256, 256, 3), np.float32)])
    assert path.stat().st_size < 0.4 * source.stat().st_size
    convolutions = [each for each in file.operators(path) if each.op == "CONV_2D"]
    assert len(convolutions) == 51
    assert {each.dtype for each in convolutions} == {"int8"}


def test_cheap_on_tiny_files(tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "int8.tflite"
    quantize_int8(tiny, path, [images(1)])
    start = time.perf_counter()
    quantize_int8(tiny, path, [images(1)])
    assert time.perf_counter() - start < 0.3


def test_refusals_leave_the_old_file(tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "int8.tflite"
    quantize_int8(tiny, path, [images(1)])
    before = path.read_bytes()
    with pytest.raises(DataError, match="without a sample"):
        quantize_int8(tiny, path, [])
    with pytest.raises(DataError, match="wants samples"):
        quantize_int8(tiny, path, [images(1, (16, 16, 4))])
    with pytest.raises(ModelError, match="quantised already"):
        quantize_int8(path, path, [images(1)])
    assert path.read_bytes() == before
    with pytest.raises(OutputError):
        quantize_int8(tiny, tmp_path / "none" / "int8.tflite", [images(1)])
    assert [each.name for each in tmp_path.iterdir()] == ["int8.tflite"]
