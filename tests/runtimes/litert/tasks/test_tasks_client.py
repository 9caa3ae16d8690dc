"""MediaPipe's real `ImageSegmenter` loads what slimseg writes, and its masks are ours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torch import nn

import slimseg
from slimseg.errors import RuntimeFailure
from slimseg.graph import image_input
from slimseg.graph.description import Description
from slimseg.graph.graph import Graph
from slimseg.graph.preprocessing import Preprocessing
from slimseg.runtimes import host
from slimseg.runtimes.litert import session
from slimseg.runtimes.litert.quantising.quantizer import quantize_int8
from slimseg.runtimes.litert.tasks import for_image_segmenter, with_task_metadata
from slimseg.runtimes.litert.writing import writer
from slimseg.runtimes.quantiser import Ends
from slimseg.techniques import head
from slimseg.tflite import file

Segment = Callable[[bytes, np.ndarray], dict[str, Any]]
Network = Callable[..., Graph]
PORTRAITS = Description(Preprocessing(), ("background", "person"), "probabilities")


def ours(path: Path, description: Description, images: np.ndarray) -> np.ndarray:
    """Masks (N, H, W) as an app of ours makes them, in the size of the images."""
    app = host.App(file.read(path), description)
    outputs = session.predict(path, np.stack([app.prepare(each) for each in images]), raw=True)
    return np.stack([app.mask(output, images.shape[1:3]) for output in outputs])


def saved(graph: Graph, path: Path, io: Ends | None = None, images: np.ndarray | None = None) -> Path:
    """The graph's file, in float or int8."""
    writer.write(graph, path)
    if io is None or images is None:
        return path
    pipeline = host.ImagePipeline(graph.description.preprocessing, graph.input_size)
    quantize_int8(path, path.with_suffix(".int8.tflite"), [pipeline(each)[None] for each in images], io=io)
    return path.with_suffix(".int8.tflite")


@pytest.mark.parametrize("io", [None, "int8", "image"])
def test_masks_and_confidences(
    network: Network, pictures: np.ndarray, segment: Segment, tmp_path: Path, io: Ends | None
) -> None:
    graph = network()
    path = saved(graph, tmp_path / "net.tflite", io, pictures)
    found = segment(for_image_segmenter(path.read_bytes(), graph.description), pictures)
    assert list(found["labels"]) == list(graph.description.classes)
    assert np.mean(found["category"] == ours(path, graph.description, pictures)) > 0.99
    assert np.allclose(found["confidence"].sum(-1), 1, atol=1e-4)  # softmax was applied
    assert np.array_equal(found["confidence"].argmax(-1), found["category"])


def test_probabilities_are_confidences_as_they_are(
    network: Network, pictures: np.ndarray, segment: Segment, tmp_path: Path
) -> None:
    plain, graph = network(), head.with_output(network(), "probabilities")
    results = [
        segment(for_image_segmenter(writer.serialise(each).data, each.description), pictures) for each in (plain, graph)
    ]
    assert np.allclose(results[0]["confidence"], results[1]["confidence"], atol=1e-5)


@pytest.mark.parametrize(("kind", "io"), [("logits", None), ("probabilities", "int8")])
def test_one_channel_becomes_two_classes(
    network: Network, pictures: np.ndarray, segment: Segment, tmp_path: Path, kind: Any, io: Ends | None
) -> None:
    graph = network(1, kind, (nn.Sigmoid(),) if kind == "probabilities" else ())
    path = saved(graph, tmp_path / "net.tflite", io, pictures)
    two = segment(for_image_segmenter(path.read_bytes(), graph.description), pictures)
    one = segment(for_image_segmenter(path.read_bytes(), graph.description, two_channels=False), pictures)
    assert list(two["labels"]) == ["ground", "person"]
    assert list(one["labels"]) == ["person"]
    expected = ours(path, graph.description, pictures)
    assert set(np.unique(expected)) == {0, 1}
    assert np.mean(two["category"] == expected) > 0.99
    assert set(np.unique(one["category"])) == {0, 255}  # MediaPipe's own convention: 0 is the class
    assert np.array_equal(one["category"] == 0, two["category"] == 1)
    assert np.allclose(one["confidence"][..., 0], two["confidence"][..., 1], atol=1e-5)


def test_colours_in_another_order_through_folding(
    network: Network, pictures: np.ndarray, segment: Segment, tmp_path: Path
) -> None:
    graph = network(preprocessing=Preprocessing.of((103.5, 116.3, 123.7), (57.4, 57.1, 58.4), "bgr"))
    path, folded = saved(graph, tmp_path / "net.tflite"), image_input.fold(graph)
    found = segment(for_image_segmenter(writer.serialise(folded).data, folded.description), pictures)
    assert np.mean(found["category"] == ours(path, graph.description, pictures)) > 0.99


def test_what_is_refused_for_being_read_wrongly(
    network: Network, pictures: np.ndarray, segment: Segment, tmp_path: Path
) -> None:
    """Our refusal of masks is called for: with metadata as if they were scores, MediaPipe takes them and is wrong."""
    graph = head.with_output(network(), "mask")
    path = saved(graph, tmp_path / "net.tflite")
    lie = replace(graph.description, output_kind="probabilities", classes=())
    from slimseg.runtimes.litert.tasks import metadata

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metadata, "_check", lambda *_: None)
        found = segment(with_task_metadata(path.read_bytes(), lie), pictures)
    assert np.mean(found["category"] == ours(path, graph.description, pictures)) < 0.5


def test_flat_output_without_our_reshape(shared: Path, pictures: np.ndarray, segment: Segment) -> None:
    from slimseg.runtimes.litert.tasks import metadata

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metadata, "_check", lambda *_: None)
        data = with_task_metadata(
            (shared / "models" / "prisma-net.tflite").read_bytes(), replace(PORTRAITS, classes=())
        )
    with pytest.raises(RuntimeFailure, match="validate_name"):
        segment(data, pictures)


def photographs(folder: Path, size: tuple[int, int], count: int) -> np.ndarray:
    paths = sorted(folder.iterdir())[:count]
    return np.stack([host.resize_image(np.array(Image.open(each).convert("RGB")), size) for each in paths])


@pytest.mark.parametrize("model", ["prisma-net", "slim_reshape"])
@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_portraits(shared: Path, segment: Segment, tmp_path: Path, model: str, precision: str) -> None:
    path = shared / "models" / f"{model}.tflite"
    height, width = file.read(path).inputs[0].shape[1:3]
    images = photographs(shared / "portraits" / "val" / "images", (height, width), 2)
    if precision == "int8":
        pipeline = host.ImagePipeline(PORTRAITS.preprocessing, (height, width))
        path = Path(tmp_path / "int8.tflite")
        quantize_int8(shared / "models" / f"{model}.tflite", path, [pipeline(each)[None] for each in images])
    found = segment(for_image_segmenter(path.read_bytes(), PORTRAITS, model), images)
    assert np.mean(found["category"] == ours(path, PORTRAITS, images)) > 0.99


@pytest.fixture(scope="module")
def camvid_unet(shared: Path) -> Graph:
    return slimseg.load(shared / "models" / "camvid_unet.pt2", input_size=(96, 128), mean=127, std=128)


@pytest.mark.parametrize("io", [None, "image"])
def test_street_scenes(shared: Path, camvid_unet: Graph, segment: Segment, tmp_path: Path, io: Ends | None) -> None:
    graph = camvid_unet
    images = photographs(shared / "camvid" / "val" / "images", (96, 128), 3)
    path = saved(graph, tmp_path / "net.tflite", io, images)
    found = segment(for_image_segmenter(path.read_bytes(), graph.description), images)
    assert np.mean(found["category"] == ours(path, graph.description, images)) > 0.99
