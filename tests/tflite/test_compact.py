"""Files that say nothing twice: what is shared, what is not, and that a reader or a run cannot tell."""

from __future__ import annotations

from pathlib import Path

import flatbuffers
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slimseg import load
from slimseg.graph.graph import Graph
from slimseg.runtimes import deployed, host
from slimseg.runtimes.litert.quantising.quantizer import quantize_int8
from slimseg.runtimes.litert.runtime import LITERT
from slimseg.runtimes.litert.session import predict
from slimseg.tflite import compact, file

DATA = Path(__file__).parents[1] / "data"


def plainly(path: Path) -> bytes:
    """The same model as flatbuffers' own builder writes it."""
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(file.parse(path.read_bytes(), path).Pack(builder), file.IDENTIFIER)
    return bytes(builder.Output())


def float_and_int8(graph: Graph, folder: Path) -> tuple[Path, Path]:
    """A float file and its int8 form."""
    float_path, path = folder / "float.tflite", folder / "int8.tflite"
    image = np.random.default_rng(0).integers(0, 256, (*graph.input_size, 3), np.uint8)
    deployed.write_float(graph, float_path)
    LITERT.quantiser().quantise_int8(float_path, path, host.prepared(graph, [image]))
    return float_path, path


@pytest.mark.parametrize("name", ["deeplab_float", "squeeze_float", "gated_float", "planar_float"])
def test_same_to_a_reader_and_in_a_run(name: str, tmp_path: Path) -> None:
    for path in float_and_int8(load(DATA / f"{name}.tflite"), tmp_path):
        other = tmp_path / f"plain_{path.name}"
        other.write_bytes(plainly(path))
        assert path.stat().st_size < other.stat().st_size
        found, expected = file.read(path), file.read(other)
        assert (found.operators, found.inputs, found.outputs) == (expected.operators, expected.inputs, expected.outputs)
        assert (found.params, found.description) == (expected.params, expected.description)
        images = np.random.default_rng(1).standard_normal((2, *found.inputs[0].shape[1:]), np.float32)
        np.testing.assert_array_equal(predict(path, images), predict(other, images))


def test_quantised_without_a_description_too(tmp_path: Path) -> None:
    source = tmp_path / "source.tflite"
    model = file.parse((DATA / "squeeze_float.tflite").read_bytes(), DATA)
    model.metadata = None
    source.write_bytes(file.pack(model))
    path = tmp_path / "int8.tflite"
    quantize_int8(source, path, [np.zeros(file.read(source).inputs[0].shape, np.float32)])
    found = [each.quantization for each in file.parse(path.read_bytes(), path).subgraphs[0].tensors]
    counts = [len(each.zeroPoint) for each in found if each is not None and each.zeroPoint is not None]
    channels = [count for count in counts if count > 1]  # the zero points of filters, all of them 0
    repeated_bytes = 8 * (sum(channels) - sum(set(channels)))
    assert repeated_bytes > 1000
    assert path.stat().st_size <= len(plainly(path)) - repeated_bytes


vectors = st.lists(st.lists(st.integers(0, 3), max_size=5), max_size=8)


@given(vectors, st.sampled_from(["uint8", "int32", "int64", "float32"]))
def test_vectors_are_shared_if_and_only_if_they_are_equal(values: list[list[int]], dtype: str) -> None:
    builder = compact.Builder(1)
    places = [builder.CreateNumpyVector(np.asarray(each, dtype)) for each in values]
    for value, place in zip(values, places, strict=True):
        assert [other == value for other in values] == [other == place for other in places]
        start = len(builder.Bytes) - place + 4
        stored = np.frombuffer(bytes(builder.Bytes[start : start + len(value) * np.dtype(dtype).itemsize]), dtype)
        assert stored.tolist() == value


def test_equal_bytes_of_other_types_are_not_shared() -> None:
    builder = compact.Builder()
    zeros = [np.zeros(1, np.int64), np.zeros(2, np.int32), np.zeros(8, np.uint8), np.zeros(2, np.float32)]
    assert len({builder.CreateNumpyVector(each) for each in zeros}) == len(zeros)


def test_strings_are_shared() -> None:
    builder = compact.Builder()
    first, other = builder.CreateString(b"main"), builder.CreateString(b"mask")
    assert builder.CreateString(b"main") == first != other
