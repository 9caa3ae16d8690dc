"""What is written within and behind a file, read back by position and by MediaPipe's own schema; what is refused."""

from __future__ import annotations

import io
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from importlib import util
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from flatbuffers.table import Table

from slimseg.errors import ModelError, Unsupported
from slimseg.graph.description import Description
from slimseg.graph.graph import Graph
from slimseg.graph.preprocessing import Preprocessing
from slimseg.runtimes.litert import session
from slimseg.runtimes.litert.tasks import fitted, for_image_segmenter, schema, with_task_metadata
from slimseg.runtimes.litert.writing import writer
from slimseg.techniques import head
from slimseg.tflite import file

Network = Callable[..., Graph]


def metadata_of(data: bytes) -> bytes:
    model = file.parse(data, Path("model"))
    (found,) = [each for each in model.metadata if each.name == b"TFLITE_METADATA"]
    return bytes(model.buffers[found.buffer].data)


def mediapipe_schema(name: str) -> ModuleType:
    """One of MediaPipe's generated schemas, which need nothing of the rest of it."""
    found = util.find_spec("mediapipe")
    if found is None or found.origin is None:
        pytest.skip("mediapipe is not installed: pip install 'slimseg[mediapipe]'")
    path = Path(found.origin).parent / "tasks" / "metadata" / f"{name}_py_generated.py"
    spec = util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def described(network: Network) -> tuple[bytes, Description]:
    graph = network()
    return writer.serialise(graph).data, graph.description


def test_read_by_mediapipes_schema(described: tuple[bytes, Description]) -> None:
    metadata, segmenter = mediapipe_schema("metadata_schema"), mediapipe_schema("image_segmenter_metadata_schema")
    data = metadata_of(with_task_metadata(*described, name="streets", licence="MIT"))
    assert metadata.ModelMetadata.ModelMetadataBufferHasIdentifier(data, 0)
    found = metadata.ModelMetadataT.InitFromPackedBuf(data, 0)
    assert (found.name, found.license, found.minParserVersion) == (b"streets", b"MIT", b"1.5.0")
    (graph,) = found.subgraphMetadata
    (image,), (scores,) = graph.inputTensorMetadata, graph.outputTensorMetadata
    assert image.content.contentPropertiesType == metadata.ContentProperties.ImageProperties
    assert image.content.contentProperties.colorSpace == metadata.ColorSpaceType.RGB
    (unit,) = image.processUnits
    assert unit.optionsType == metadata.ProcessUnitOptions.NormalizationOptions
    assert (list(unit.options.mean), list(unit.options.std)) == ([127], [128])
    assert scores.content.contentPropertiesType == metadata.ContentProperties.FeatureProperties
    (labels,) = scores.associatedFiles
    assert (labels.name, labels.type) == (b"labels.txt", metadata.AssociatedFileType.TENSOR_AXIS_LABELS)
    (custom,) = graph.customMetadata
    options = bytes(custom.data)
    assert custom.name == b"SEGMENTER_METADATA"
    assert segmenter.ImageSegmenterOptions.ImageSegmenterOptionsBufferHasIdentifier(options, 0)
    assert segmenter.ImageSegmenterOptionsT.InitFromPackedBuf(options, 0).activation == segmenter.Activation.SOFTMAX


def slot(table: Table, number: int) -> int:
    return int(table.Offset(4 + 2 * number)) + table.Pos


def test_slots_without_mediapipe() -> None:
    """The layer itself: text, a vector of floats, a union, by the positions that the public schema gives them."""
    unit = schema.Normalization(schema.NormalizationOptions((1.5, 2.5), (3.0, 4.0)))
    data = schema.pack(unit, b"TEST")
    assert data[4:8] == b"TEST"
    table = Table(bytearray(data), int.from_bytes(data[:4], "little"))
    assert data[slot(table, 0)] == 1  # the union's type, NormalizationOptions
    options = Table(table.Bytes, table.Indirect(slot(table, 1)))
    start = options.Vector(slot(options, 1) - options.Pos)
    assert np.frombuffer(data, "<f4", 2, start).tolist() == [3.0, 4.0]


@pytest.mark.parametrize("length", range(1, 18, 4))
def test_bytes_of_a_nested_flatbuffer_are_aligned(length: int) -> None:
    marker = b"0123456789abcdef"
    graph = schema.SubGraphMetadata((), (), (schema.CustomMetadata("a", marker),))
    data = schema.pack(schema.ModelMetadata("a", "", (graph,), "b" * length), b"TEST")  # the licence lies in front
    assert data.index(marker) % 16 == 0


def test_an_absent_field_takes_no_place() -> None:
    data = schema.pack(schema.ModelMetadata("a", "", (), ""), b"TEST")
    table = Table(bytearray(data), int.from_bytes(data[:4], "little"))
    assert table.Offset(4 + 2 * 5) == 0
    assert table.String(slot(table, 7)) == b"1.5.0"


def test_labels_lie_behind_the_file(described: tuple[bytes, Description]) -> None:
    data, description = described
    names = ("sky", "a road\n", "", "tram  way", "Straße")
    found = with_task_metadata(data, replace(description, classes=names))
    with zipfile.ZipFile(io.BytesIO(found)) as archive:
        assert archive.namelist() == ["labels.txt"]
        assert archive.getinfo("labels.txt").compress_type == zipfile.ZIP_STORED  # MediaPipe maps it as it is
        assert archive.read("labels.txt").decode() == "sky\na road\n\ntram way\nStraße\n"


def test_the_network_is_the_same(described: tuple[bytes, Description], tmp_path: Path, pictures: np.ndarray) -> None:
    data, description = described
    before, after = tmp_path / "before.tflite", tmp_path / "after.tflite"
    before.write_bytes(data)
    after.write_bytes(with_task_metadata(data, description))
    images = pictures.astype(np.float32) / 128
    assert np.array_equal(session.predict(before, images), session.predict(after, images))
    assert file.read(after).description == description


def test_again_gives_the_same_bytes(described: tuple[bytes, Description]) -> None:
    data, description = described
    once = with_task_metadata(data, description)
    assert with_task_metadata(once, description) == once == with_task_metadata(data, description)
    assert len(fitted(once, description)) < len(once)  # no second archive behind the first


def test_no_names_no_labels(described: tuple[bytes, Description]) -> None:
    data, description = described
    assert not zipfile.is_zipfile(io.BytesIO(with_task_metadata(data, replace(description, classes=()))))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"preprocessing": Preprocessing.of((1, 2, 3), 4)}, r"one mean and std: fold.*image_input\.fold"),
        ({"preprocessing": Preprocessing.of(0, 255, "bgr")}, r"in bgr.*fold"),
        ({"classes": ("a", "b")}, "5 channels, and 2 class names"),
        ({"output_kind": "mask"}, "export logits or probabilities"),
    ],
)
def test_refused_by_its_description(described: tuple[bytes, Description], changes: dict[str, Any], reason: str) -> None:
    data, description = described
    with pytest.raises(Unsupported, match=reason):
        for_image_segmenter(data, replace(description, **changes), "streets")


def test_a_mask_is_refused_whatever_is_said_of_it(network: Network) -> None:
    graph = head.with_output(network(), "mask")
    with pytest.raises(Unsupported, match="outputs a mask"):
        with_task_metadata(writer.serialise(graph).data, replace(graph.description, output_kind="logits"))


def test_a_network_of_four_channels(tiny: Path) -> None:
    with pytest.raises(Unsupported, match=r"needs \(1, 32, 32, 4\)"):
        with_task_metadata(tiny.read_bytes(), Description())


@pytest.mark.parametrize("outputs", [(), (1, 2)])
def test_one_output_is_taken(described: tuple[bytes, Description], outputs: tuple[int, ...]) -> None:
    data, description = described
    model = file.parse(data, Path("model"))
    model.subgraphs[0].outputs = np.asarray(outputs, np.int32)
    for change in (fitted, with_task_metadata):
        with pytest.raises(Unsupported, match=f"1 inputs and {len(outputs)} outputs"):
            change(file.pack(model), description)


def test_no_model() -> None:
    with pytest.raises(ModelError, match=r"not a \.tflite"):
        with_task_metadata(b"nothing of the kind", Description())
