"""Operators at the ends of a file change its form and not its answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from slimseg.errors import Unsupported
from slimseg.graph.description import Description
from slimseg.graph.graph import Graph
from slimseg.graph.preprocessing import Preprocessing
from slimseg.runtimes import host
from slimseg.runtimes.litert import session
from slimseg.runtimes.litert.quantising.quantizer import quantize_int8
from slimseg.runtimes.litert.tasks import fitted, with_task_metadata
from slimseg.runtimes.litert.writing import writer
from slimseg.runtimes.quantiser import Ends
from slimseg.tflite import file

Network = Callable[..., Graph]


def int8(graph: Graph, path: Path, images: np.ndarray, io: Ends, bytes_range: bool = False) -> Path:
    writer.write(graph, path.with_suffix(".float.tflite"))
    pipeline = host.ImagePipeline(graph.description.preprocessing, graph.input_size)
    ranges = {graph.input.name: graph.description.preprocessing.byte_range} if bytes_range else {}
    samples = [pipeline(each)[None] for each in images]
    quantize_int8(path.with_suffix(".float.tflite"), path, samples, io=io, ranges=ranges)
    return path


def masks(path: Path, description: Description, images: np.ndarray) -> np.ndarray:
    app = host.App(file.read(path), description)
    outputs = session.predict(path, np.stack([app.prepare(each) for each in images]), raw=True)
    return np.stack([app.mask(output, images.shape[1:3]) for output in outputs])


def test_nothing_to_do(network: Network) -> None:
    data = writer.serialise(network()).data
    assert fitted(data, network().description) == file.pack(file.parse(data, Path("model")))


@pytest.mark.parametrize(("bytes_range", "dtype"), [(False, "float32"), (True, "uint8")])
def test_integer_input(network: Network, pictures: np.ndarray, tmp_path: Path, bytes_range: bool, dtype: str) -> None:
    graph = network()
    before, after = int8(graph, tmp_path / "int8.tflite", pictures, "int8", bytes_range), tmp_path / "after.tflite"
    assert file.read(before).inputs[0].dtype == "int8"
    after.write_bytes(fitted(before.read_bytes(), graph.description))
    found = file.read(after).inputs[0]
    assert (found.name, found.dtype) == (graph.input.name, dtype)
    assert np.array_equal(masks(before, graph.description, pictures), masks(after, graph.description, pictures))


def test_bytes_of_another_scale(network: Network, pictures: np.ndarray, tmp_path: Path) -> None:
    """A uint8 input that says something else than the description is not the image's bytes."""
    graph = network()
    path = int8(graph, tmp_path / "bytes.tflite", pictures, "image")
    same = fitted(path.read_bytes(), graph.description)
    other = replace(graph.description, preprocessing=Preprocessing.of(0, 255))
    with pytest.raises(Unsupported, match="integers other than the image's bytes"):
        with_task_metadata(path.read_bytes(), other)
    for data, dtype in ((same, "uint8"), (fitted(path.read_bytes(), other), "float32")):
        (tmp_path / "after.tflite").write_bytes(data)
        assert file.read(tmp_path / "after.tflite").inputs[0].dtype == dtype


@pytest.mark.parametrize("kind", ["logits", "probabilities"])
def test_a_second_channel(network: Network, pictures: np.ndarray, tmp_path: Path, kind: str) -> None:
    graph = network(1, kind, (nn.Sigmoid(),) if kind == "probabilities" else ())
    before, after = tmp_path / "before.tflite", tmp_path / "after.tflite"
    writer.write(graph, before)
    after.write_bytes(fitted(before.read_bytes(), graph.description))
    images = np.stack(
        [host.ImagePipeline(graph.description.preprocessing, graph.input_size)(each) for each in pictures]
    )
    one, two = session.predict(before, images)[..., 0], session.predict(after, images)
    assert np.allclose(two[..., 1], one, atol=1e-6)
    assert np.allclose(two[..., 0], 1 - one if kind == "probabilities" else 0, atol=1e-6)
    assert file.read(after).outputs[0].name == file.read(before).outputs[0].name


@pytest.mark.parametrize("model", ["prisma-net", "slim_reshape"])
def test_a_flat_output(shared: Path, tmp_path: Path, model: str) -> None:
    description = Description(Preprocessing(), ("background", "person"), "probabilities")
    before, after = shared / "models" / f"{model}.tflite", tmp_path / "after.tflite"
    after.write_bytes(fitted(before.read_bytes(), description, two_channels=False))
    shape = file.read(before).inputs[0].shape
    assert file.read(after).outputs[0].shape == (*shape[:3], 1)
    image = np.random.default_rng(0).random((1, *shape[1:]), np.float32)
    assert np.array_equal(session.predict(before, image).ravel(), session.predict(after, image).ravel())


def test_the_signature_follows(network: Network, pictures: np.ndarray, tmp_path: Path) -> None:
    graph = network(1)
    path = int8(graph, tmp_path / "int8.tflite", pictures, "int8")
    model = file.parse(fitted(path.read_bytes(), graph.description), Path("model"))
    (signature,), main = model.signatureDefs, model.subgraphs[0]
    assert [each.tensorIndex for each in signature.inputs] == list(main.inputs)
    assert [each.tensorIndex for each in signature.outputs] == list(main.outputs)


def test_no_place_for_every_pixel(tiny_mask: Path) -> None:
    data = tiny_mask.read_bytes()
    model = file.parse(data, tiny_mask)
    model.subgraphs[0].tensors[int(model.subgraphs[0].outputs[0])].shape = np.asarray([1, 1000], np.int32)
    with pytest.raises(Unsupported, match="1000 numbers for an input of 32x32, not one per pixel"):
        fitted(file.pack(model), Description())
