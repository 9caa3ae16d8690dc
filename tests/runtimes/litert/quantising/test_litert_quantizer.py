"""Static int8: close to the float file, smaller, description kept, cheap enough to price hundreds of edits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from slimseg.errors import DataError, ModelError, OutputError
from slimseg.runtimes.litert.quantising.quantizer import (
    check,
    measure_ranges,
    quantize,
    quantize_int8,
)
from slimseg.runtimes.litert.session import predict
from slimseg.runtimes.quantiser import SCHEMES, STATIC, Scheme
from slimseg.tflite import file


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


def test_refusals_leave_the_old_file(tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "int8.tflite"
    quantize_int8(tiny, path, [images(1)])
    before = path.read_bytes()
    with pytest.raises(DataError, match="without an image for calibration"):
        quantize_int8(tiny, path, [])
    with pytest.raises(DataError, match="needs inputs of shape"):
        quantize_int8(tiny, path, [images(1, (16, 16, 4))])
    with pytest.raises(ModelError, match="is already quantised"):
        quantize_int8(path, path, [images(1)])
    assert path.read_bytes() == before
    with pytest.raises(OutputError):
        quantize_int8(tiny, tmp_path / "none" / "int8.tflite", [images(1)])
    assert [each.name for each in tmp_path.iterdir()] == ["int8.tflite"]


# Every scheme


def constants(path: Path) -> dict[str, object]:
    """The stored tensors of a file by name."""
    model = file.parse(path.read_bytes(), path)
    graph = model.subgraphs[0]
    return {each.name.decode(): each for each in graph.tensors if model.buffers[each.buffer].data is not None}


def tensors(path: Path) -> dict[str, object]:
    return {each.name.decode(): each for each in file.parse(path.read_bytes(), path).subgraphs[0].tensors}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_scheme_stays_close(tiny: Path, tmp_path: Path, scheme: Scheme) -> None:
    path = tmp_path / "quantised.tflite"
    ranges = measure_ranges(tiny, list(images(4))) if scheme in STATIC else None
    quantize(tiny, path, scheme, ranges)
    assert file.read_description(path) == file.read_description(tiny)
    assert file.read(path).inputs[0].dtype == file.read(path).outputs[0].dtype == "float32"
    expected, got = predict(tiny, images(3)), predict(path, images(3))
    allowed = {"float16": 0.001, "int16x8": 0.02, "int8": 0.03}.get(scheme, 0.02)
    assert 0 < np.abs(expected - got).mean() < allowed * expected.std()
    kind = schema.TensorType.FLOAT16 if scheme == "float16" else schema.TensorType.INT8
    assert constants(path)["w"].type == kind  # type: ignore[attr-defined]


def test_16_bit_activations_are_symmetric(tiny: Path, tmp_path: Path) -> None:
    """Zero point 0, and the wider side of the range counts for both; biases have 64 bits."""
    path = tmp_path / "int16x8.tflite"
    quantize(tiny, path, "int16x8", {"x": (-1.0, 3.2767), "conv": (0.0, 2.0), "both": (0.0, 2.0)})
    found = tensors(path)
    conv = found["conv"]
    assert conv.type == schema.TensorType.INT16  # type: ignore[attr-defined]
    assert list(conv.quantization.zeroPoint) == [0]  # type: ignore[attr-defined]
    assert conv.quantization.scale[0] == pytest.approx(2.0 / 32767, rel=1e-3)  # type: ignore[attr-defined]
    (x,) = [each for name, each in found.items() if name.startswith("x") and each.type == schema.TensorType.INT16]  # type: ignore[attr-defined]
    assert x.quantization.scale[0] == pytest.approx(1e-4, rel=1e-3)  # type: ignore[attr-defined]
    assert constants(path)["b"].type == schema.TensorType.INT64  # type: ignore[attr-defined]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_operators_that_stay_in_float(tiny: Path, tmp_path: Path, scheme: Scheme) -> None:
    path = tmp_path / "mixed.tflite"
    ranges = measure_ranges(tiny, list(images(4))) if scheme in STATIC else None
    quantize(tiny, path, scheme, ranges, keep_float=("conv",))
    found = {each.op: each for each in file.operators(path)}
    assert found["CONV_2D"].dtype == "float32"
    assert constants(path)["w"].type == schema.TensorType.FLOAT32  # type: ignore[attr-defined]
    if scheme == "int8":
        assert found["CONCATENATION"].dtype == "int8"


def test_names_are_exact(tiny: Path, tmp_path: Path) -> None:
    """Neither a part of a name nor a pattern keeps an operator in float."""
    path = tmp_path / "int8.tflite"
    quantize(tiny, path, "int8", measure_ranges(tiny, list(images(4))), keep_float=("con", "onv", "c.nv", ".*"))
    assert all(each.dtype == "int8" for each in file.operators(path) if each.op in ("CONV_2D", "CONCATENATION"))


def test_int8_ends_around_a_float_operator(tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "int8.tflite"
    quantize(tiny, path, "int8", measure_ranges(tiny, list(images(4))), io="int8", keep_float=("both",))
    found = file.read(path)
    assert found.inputs[0].dtype == found.outputs[0].dtype == "int8"
    assert next(each for each in found.operators if each.op == "CONCATENATION").dtype == "float32"


def test_an_activation_that_stays_in_float_keeps_its_spelling(tmp_path: Path) -> None:
    path, mixed = spelled(tmp_path / "float.tflite"), tmp_path / "mixed.tflite"
    ranges = measure_ranges(path, list(images(2)))
    quantize(path, mixed, "int8", ranges, keep_float=("h",))
    assert [each.op for each in file.operators(mixed) if each.op not in ("QUANTIZE", "DEQUANTIZE")] == ["HARD_SWISH"]


def spelled(path: Path, name: str = "h") -> Path:
    """h = hard-swish(x); the output is called as asked."""
    from slimseg.graph.description import Description
    from slimseg.tflite.schema import ModelBuilder

    builder = ModelBuilder()
    image, result = builder.tensor("x", (1, 32, 32, 4)), builder.tensor(name, (1, 32, 32, 4))
    options = schema.HardSwishOptionsT()
    builder.operator(
        schema.BuiltinOperator.HARD_SWISH, [image], result, options, schema.BuiltinOptions.HardSwishOptions
    )
    path.write_bytes(builder.finish([image], [result], Description()))
    return path


def test_two_tensors_of_one_name(tiny: Path, tmp_path: Path) -> None:
    """Some converters do that; the quantiser would refuse it."""
    model = file.parse(tiny.read_bytes(), tiny)
    for tensor in model.subgraphs[0].tensors:
        tensor.name = b"" if tensor.name == b"both" else b"same"
    source, path = tmp_path / "same.tflite", tmp_path / "int8.tflite"
    source.write_bytes(file.pack(model))
    ranges = measure_ranges(source, list(images(2)))
    assert len(ranges) == 3
    quantize(source, path, "int8", ranges)
    assert np.abs(predict(source, images(2)) - predict(path, images(2))).mean() < 0.05


@pytest.mark.parametrize("scheme", SCHEMES)
def test_what_is_quantised_is_refused(tiny: Path, tmp_path: Path, scheme: Scheme) -> None:
    path = tmp_path / "quantised.tflite"
    quantize(tiny, path, scheme, measure_ranges(tiny, list(images(2))) if scheme in STATIC else None)
    with pytest.raises(ModelError, match="is already quantised"):
        check(path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite(tiny: Path, tmp_path: Path, value: float) -> None:
    model = file.parse(tiny.read_bytes(), tiny)
    weights = next(each for each in model.subgraphs[0].tensors if each.name == b"w")
    spoilt = np.frombuffer(bytes(model.buffers[weights.buffer].data), np.float32).copy()
    spoilt[7] = value
    model.buffers[weights.buffer].data = np.frombuffer(spoilt.tobytes(), np.uint8)
    path = tmp_path / "nan.tflite"
    path.write_bytes(file.pack(model))
    with pytest.raises(ModelError, match="NaN or infinite weights in conv"):
        quantize(path, tmp_path / "out.tflite", "float16")
    assert not (tmp_path / "out.tflite").exists()


def test_what_a_scheme_needs_and_takes(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs the ranges"):
        quantize(tiny, tmp_path / "out.tflite", "int16x8")
    with pytest.raises(ValueError, match="not int8"):
        quantize(tiny, tmp_path / "out.tflite", "float16", io="int8")
