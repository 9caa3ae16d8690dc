"""float16 constants: written where they lose nothing, and read as float32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from torch import nn

from slimseg import load
from slimseg.errors import ModelError
from slimseg.graph.graph import Graph
from slimseg.runtimes.litert import session
from slimseg.runtimes.litert.writing import writer
from slimseg.tflite import file, halves
from slimseg.tflite.schema import Storage

DATA = Path(__file__).resolve().parents[1] / "data"
SIZE = (16, 24)


@pytest.fixture
def network() -> Graph:
    """The first and the last layer's weights fit float16; the middle one's do not, and the last has one too large."""
    layers = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 32, 1)
    for layer in (layers[0], layers[2]):
        layer.weight.data = layer.weight.data.half().float()
    layers[2].weight.data[0, 0] = 1e6
    return load(nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2]), SIZE)


def outputs(path: Path) -> np.ndarray:
    image = np.random.default_rng(0).random((1, *file.read(path).inputs[0].shape[1:]), np.float32)
    return np.asarray(session.predict(path, image, raw=True))


def stored(path: Path) -> dict[str, str]:
    """By layer: in what its weights are stored."""
    model = file.parse(path.read_bytes(), path)
    names = {1: "float16", 0: "float32"}
    return {
        tensor.name.decode(): names[tensor.type]
        for tensor in model.subgraphs[0].tensors
        if tensor.type in names and model.buffers[tensor.buffer].data is not None
    }


@pytest.mark.parametrize(("storage", "count"), [("float32", 0), ("float16 where exact", 1), ("float16", 2)])
def test_weights_are_stored_in_16_bits_as_asked(network: Graph, tmp_path: Path, storage: Storage, count: int) -> None:
    path = tmp_path / "model.tflite"
    writer.write(network, path, storage)
    assert list(stored(path).values()).count("float16") == count
    assert file.read(path).params == file.read(plain(network, tmp_path)).params


def test_where_nothing_is_rounded_outputs_are_the_same(network: Graph, tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    writer.write(network, path, "float16 where exact")
    np.testing.assert_array_equal(outputs(path), outputs(plain(network, tmp_path)))
    assert path.stat().st_size < plain(network, tmp_path).stat().st_size


def plain(graph: Graph, folder: Path) -> Path:
    path = folder / "plain.tflite"
    writer.write(graph, path)
    return path


def test_a_files_weights_are_told(network: Graph, tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    writer.write(network, path, "float16")
    assert file.read(path).weights == "float16 and float32"  # the last layer has a weight that float16 cannot hold
    assert file.read(plain(network, tmp_path)).weights == "float32"
    told = {name: file.read(DATA / f"{name}.tflite").weights for name in ("gated_float16", "squeeze_int8", "old_float")}
    assert told == {"gated_float16": "float16", "squeeze_int8": "int8", "old_float": "float32"}


@pytest.mark.parametrize("direct", [False, True])
def test_a_widened_file_computes_the_same(tmp_path: Path, direct: bool) -> None:
    """`direct`: operators read float16 weights without a DEQUANTIZE, as some converters write them."""
    source = DATA / "gated_float16.tflite"
    data = read_directly(source) if direct else source.read_bytes()
    path = tmp_path / "wide.tflite"
    path.write_bytes(halves.widened(data, source))
    found = file.read(path)
    assert found.weights == "float32"
    assert not any(each.op == "DEQUANTIZE" for each in found.operators)
    np.testing.assert_array_equal(outputs(path), outputs(source))


@pytest.mark.parametrize("name", ["gated_float16", "squeeze_float", "squeeze_dynamic"])
def test_narrowing_loses_nothing(tmp_path: Path, name: str) -> None:
    """Of weights that came in float16 the larger become so again; others stay as they are."""
    source, path = DATA / f"{name}.tflite", tmp_path / "narrow.tflite"
    path.write_bytes(halves.narrowed(halves.widened(source.read_bytes(), source), source))
    assert file.read(path).weights.split()[0] == file.read(source).weights.split()[0]
    assert path.stat().st_size < 1.15 * source.stat().st_size
    np.testing.assert_array_equal(outputs(path), outputs(source))


def read_directly(source: Path) -> bytes:
    model = file.parse(source.read_bytes(), source)
    graph = model.subgraphs[0]
    widening = [each for each in graph.operators if len(each.inputs) == 1 and graph.tensors[each.inputs[0]].type == 1]
    meant = {int(each.outputs[0]): int(each.inputs[0]) for each in widening}
    graph.operators = [each for each in graph.operators if each not in widening]
    for operator in graph.operators:
        operator.inputs = np.array([meant.get(int(each), int(each)) for each in operator.inputs], np.int32)
    return file.pack(model)


def test_a_network_opened_from_float16_knows_it(tmp_path: Path) -> None:
    assert load(DATA / "gated_float16.tflite").weights == "float16"
    assert load(DATA / "gated_float.tflite").weights == "float32"
    path = tmp_path / "direct.tflite"
    path.write_bytes(read_directly(DATA / "gated_float16.tflite"))
    assert load(path).weights == "float16"


def test_what_is_no_tflite_cannot_be_widened() -> None:
    with pytest.raises(ModelError, match=r"no\.tflite is not a \.tflite model"):
        halves.widened(b"nothing of the kind", Path("no.tflite"))
