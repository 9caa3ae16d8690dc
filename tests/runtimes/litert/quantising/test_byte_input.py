"""A file that takes the image's bytes gives what the file with float input gives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import slimseg
from slimseg.errors import ModelError
from slimseg.graph import edit, image_input
from slimseg.graph.graph import Graph
from slimseg.graph.preprocessing import Preprocessing
from slimseg.runtimes import host
from slimseg.runtimes.litert import session
from slimseg.runtimes.litert.profiling import profiler
from slimseg.runtimes.litert.quantising.quantizer import quantize_int8
from slimseg.runtimes.litert.writing import writer
from slimseg.runtimes.quantiser import Ends
from slimseg.tensors import quantise
from slimseg.tflite import file

pytestmark = pytest.mark.usefixtures("hurried")

SIZE = (24, 32)


def network(preprocessing: Preprocessing) -> Graph:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 5, 3, 1, 1))
    graph = edit.trace(layers.eval(), (1, 3, *SIZE))
    graph.description = replace(graph.description, preprocessing=preprocessing)
    return graph


def images(count: int = 4) -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 256, (count, *SIZE, 3), np.uint8))


def int8(graph: Graph, path: Path, io: Ends, pictures: list[np.ndarray]) -> file.File:
    writer.write(graph, path.with_suffix(".float.tflite"))
    pipeline = host.ImagePipeline(graph.description.preprocessing, graph.input_size)
    quantize_int8(path.with_suffix(".float.tflite"), path, [pipeline(each) for each in pictures], io=io)
    return file.read(path)


@pytest.mark.parametrize(("mean", "std"), [(127, 128), (0, 255), (128, 57.3)])
def test_the_bytes_are_the_input(tmp_path: Path, mean: float, std: float) -> None:
    preprocessing = Preprocessing.of(mean, std)
    found = int8(network(preprocessing), tmp_path / "bytes.tflite", "image", images())
    assert (found.inputs[0].dtype, found.inputs[0].zero_point) == ("uint8", mean)
    assert found.inputs[0].scale == pytest.approx(1 / std, rel=1e-6)
    assert found.outputs[0].dtype == "int8"
    assert found.description is not None
    assert found.description.preprocessing == preprocessing
    app, picture = host.App(found), images()[0]
    assert app.prepare(picture) is picture
    value = host.ImagePipeline(preprocessing, SIZE)(picture)
    assert np.array_equal(quantise(value, found.inputs[0]), picture)  # float callers get the same bytes


@pytest.mark.parametrize(
    "preprocessing",
    [Preprocessing.of((123.7, 116.3, 103.5), (58.4, 57.1, 57.4)), Preprocessing.of(127.5, 127.5, "bgr")],
)
def test_a_folded_network_gives_nearly_the_same(tmp_path: Path, preprocessing: Preprocessing) -> None:
    graph = network(preprocessing)
    folded = image_input.fold(graph)
    plain = int8(graph, tmp_path / "plain.tflite", "float32", images())
    found = int8(folded, tmp_path / "bytes.tflite", "image", images())
    answers = [
        session.predict(model.path, np.stack([pipeline(image) for image in images()]))
        for pipeline, model in (
            (host.ImagePipeline(preprocessing, SIZE), plain),
            (host.ImagePipeline(folded.description.preprocessing, SIZE), found),
        )
    ]
    assert np.abs(answers[0] - answers[1]).mean() < 0.03 * answers[0].std()


def test_the_conversion_stays_in_the_delegate(tmp_path: Path) -> None:
    found = int8(network(Preprocessing.of(127, 128)), tmp_path / "bytes.tflite", "image", images())
    assert [each.op for each in found.operators[:2]] == ["DEQUANTIZE", "QUANTIZE"]
    layers = profiler.profile(found.path, runs=5).layers
    assert {layer.delegate for layer in layers if layer.latency_ms} == {"XNNPACK"}


def test_it_opens_as_what_it_was(tmp_path: Path) -> None:
    graph = network(Preprocessing.of(127, 128))
    found = int8(graph, tmp_path / "bytes.tflite", "image", images())
    opened = slimseg.load(found.path)
    assert opened.description == graph.description
    value = torch.from_numpy(host.ImagePipeline(graph.description.preprocessing, SIZE)(images()[0])).permute(2, 0, 1)[
        None
    ]
    with torch.no_grad():
        expected, got = graph(value), opened(value)
    assert float((got - expected).abs().mean() / expected.std()) < 0.03


@pytest.mark.parametrize("wants", [{"mean": 127.5}, {"mean": (1, 2, 3)}, {"mean": 300}, {"channel_order": "bgr"}])
def test_refused_with_what_to_do(tmp_path: Path, wants: dict[str, object]) -> None:
    graph = network(Preprocessing.of(**wants))  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=r"cannot have byte input.*image_input\.fold"):
        int8(graph, tmp_path / "bytes.tflite", "image", images())


def test_a_network_of_four_channels(tmp_path: Path, tiny: Path) -> None:
    with pytest.raises(ModelError, match="cannot have byte input"):
        quantize_int8(tiny, tmp_path / "bytes.tflite", [np.zeros((1, 32, 32, 4), np.float32)], io="image")


def test_a_file_that_nobody_described(shared: Path, tmp_path: Path) -> None:
    sample = np.zeros((1, 256, 256, 3), np.float32)
    with pytest.raises(ModelError, match="does not state how its input is normalised"):
        quantize_int8(shared / "models" / "prisma-net.tflite", tmp_path / "bytes.tflite", [sample], io="image")


@pytest.mark.parametrize("order", ["rgb", "bgr"])
@pytest.mark.parametrize("mean", [127, (120, 110, 100)])
def test_quantised_inputs_by_table_are_those_of_the_formula(tmp_path: Path, mean: object, order: str) -> None:
    preprocessing = Preprocessing.of(mean, 60, order)  # type: ignore[arg-type]
    found = int8(network(preprocessing), tmp_path / "int8.tflite", "int8", images())
    wanted = quantise(host.ImagePipeline(preprocessing, SIZE)(images()[0]), found.inputs[0])
    got = host.App(found).prepare(images()[0])
    assert got.dtype == np.int8
    assert np.array_equal(got, wanted)


def test_equal_masks_of_photographs(shared: Path, tmp_path: Path) -> None:
    """With float input of the same range, and with bytes."""
    graph = slimseg.load(shared / "models" / "camvid_unet.pt2", input_size=(96, 128), mean=127, std=128)
    paths = sorted((shared / "camvid" / "val" / "images").iterdir())[:3]
    pictures = [np.array(Image.open(path).convert("RGB")) for path in paths]
    inputs = [host.ImagePipeline(graph.description.preprocessing, (96, 128))(each) for each in pictures]
    writer.write(graph, tmp_path / "float.tflite")
    masks = []
    for io in ("float32", "image"):
        path = tmp_path / f"{io}.tflite"
        ranges = {graph.input.name: graph.description.preprocessing.byte_range}
        quantize_int8(tmp_path / "float.tflite", path, inputs, io=io, ranges=ranges)  # type: ignore[arg-type]
        app = host.App(file.read(path))
        outputs = session.predict(path, np.stack([app.prepare(each) for each in pictures]), raw=True)
        masks.append(np.stack([app.mask(output, (360, 480)) for output in outputs]))
    assert float(np.mean(masks[0] == masks[1])) > 0.9999  # logits that are equal in 8 bits may differ as float
