"""`.tflite` files: the source's own where there is one, for MediaPipe wherever it can take them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from slimseg.errors import UserError
from slimseg.exporting.source import Source, open_source
from slimseg.graph.graph import Graph
from slimseg.graph.preprocessing import Preprocessing
from slimseg.runtimes import host
from slimseg.runtimes.exporter import Request
from slimseg.runtimes.litert import exporter, session
from slimseg.runtimes.litert.tasks import client, has_task_metadata
from slimseg.runtimes.litert.writing import writer
from slimseg.techniques.head import with_output
from slimseg.tflite import file
from slimseg.training.data import Pixels

Ask = Callable[..., Request]
GraphMask = Callable[[Graph, Pixels], np.ndarray]
SIZE = (32, 48)


def masks(path: Path, images: list[Pixels]) -> np.ndarray:
    app = host.App(file.read(path))
    return np.stack([app.mask(session.predict(path, app.prepare(each)[None], raw=True)[0], SIZE) for each in images])


@pytest.mark.parametrize(("target", "least"), [("tflite", 0.999), ("tflite:int8", 0.97)])
def test_masks_are_the_networks(
    ask: Ask, graph: Graph, pictures: list[Pixels], target: str, least: float, graph_mask: GraphMask
) -> None:
    written = exporter.write(ask(target))
    wanted = np.stack([graph_mask(graph, each) for each in pictures])
    assert np.mean(masks(written.path, pictures) == wanted) >= least
    assert written.artefact.for_mediapipe
    assert written.artefact.precision == ("int8" if "int8" in target else "float32")
    assert written.is_float == ("int8" not in target)
    assert written.artefact.takes_pixels == ("int8" in target)


def test_mediapipe_itself_is_asked(ask: Ask) -> None:
    if not client.available():
        pytest.skip(f"mediapipe is not installed: {client.INSTALL}")
    artefact = exporter.write(ask("tflite")).artefact
    assert any(sentence.startswith("MediaPipe") and "loads it" in sentence for sentence in artefact.verified)


def test_normalisation_by_channel_is_folded_for_mediapipe(ask: Ask, graph: Graph, pictures: list[Pixels]) -> None:
    graph.description = replace(graph.description, preprocessing=Preprocessing.of((120, 110, 100), (60, 61, 62), "bgr"))
    written = exporter.write(ask("tflite", graph))
    assert written.artefact.for_mediapipe
    said = file.read_description(written.path)
    assert said is not None
    assert said.preprocessing.channel_order == "rgb"
    app = host.App(file.read(written.path))
    (output,) = session.predict(written.path, app.prepare(pictures[0])[None])
    (wanted,) = session.predict(plain(graph, written.path.with_name("own.tflite")), prepared(graph, pictures[0]))
    assert np.allclose(output, wanted, atol=1e-4)


def plain(graph: Graph, path: Path) -> Path:
    writer.write(graph, path)
    return path


def prepared(graph: Graph, image: Pixels) -> np.ndarray:
    return host.ImagePipeline(graph.description.preprocessing, graph.input_size)(image)[None]


def test_a_mask_is_delivered_without_mediapipe(
    ask: Ask, graph: Graph, pictures: list[Pixels], graph_mask: GraphMask
) -> None:
    written = exporter.write(ask("tflite", with_output(graph, "mask")))
    assert not has_task_metadata(written.path.read_bytes())
    assert any("mask of class indices" in sentence for sentence in written.artefact.not_verified)
    assert np.mean(masks(written.path, pictures) == np.stack([graph_mask(graph, each) for each in pictures])) > 0.999


def test_the_sources_own_file_is_taken(ask: Ask, graph: Graph, tmp_path: Path, pictures: list[Pixels]) -> None:
    own = exporter.write(ask("tflite:int8")).path
    source = open_source(own)
    assert source.precision == "int8"
    written = exporter.write(ask("tflite", source))
    assert written.artefact.precision == "int8"
    assert np.array_equal(masks(own, pictures), masks(written.path, pictures))


def test_int8_needs_images(ask: Ask) -> None:
    with pytest.raises(UserError, match="needs images"):
        exporter.write(ask("tflite:int8", with_images=False))


def test_float_of_an_int8_file_is_written_anew(ask: Ask, graph: Graph) -> None:
    source = open_source(exporter.write(ask("tflite:int8")).path)
    written = exporter.write(ask("tflite:float32", Source(source.graph, source.files)))
    assert not file.read(written.path).integer
