"""What surrounds the network in an app: the same values as the plain formula, and masks at any size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from slimseg.errors import ModelError
from slimseg.graph.description import Description
from slimseg.graph.graph import Graph
from slimseg.graph.preprocessing import Preprocessing
from slimseg.runtimes import end_to_end, host
from slimseg.runtimes.litert.quantising import quantizer
from slimseg.runtimes.litert.writing import writer
from slimseg.runtimes.quantiser import Ends
from slimseg.tensors import TensorInfo
from slimseg.tflite import file


def image(height: int = 36, width: int = 48) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("order", ["rgb", "bgr"])
@pytest.mark.parametrize("numbers", [{"mean": 127, "std": 128}, {"mean": (1, 2, 3), "std": (4, 5, 6)}, {}])
def test_the_input_is_the_plain_formula(order: str, numbers: dict[str, object]) -> None:
    preprocessing = Preprocessing.of(**numbers, channel_order=order)  # type: ignore[arg-type]
    pixels = image()
    result = host.ImagePipeline(preprocessing, (36, 48))(pixels)
    ordered = pixels[..., ::-1] if order == "bgr" else pixels
    wanted = (ordered.astype(np.float64) - preprocessing.mean) / preprocessing.std
    assert result.dtype == np.float32
    assert result.flags.c_contiguous
    assert np.allclose(result, wanted, atol=1e-5)


@pytest.mark.parametrize("size", [(18, 24), (20, 31), (72, 96)])
def test_resizing_is_within_a_grey_level_of_pillow(size: tuple[int, int]) -> None:
    pixels = image()
    wanted = np.asarray(Image.fromarray(pixels).resize((size[1], size[0]), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(host.resize_image(pixels, size).astype(int) - wanted).max() <= 1


def test_the_users_image_is_left_alone() -> None:
    pixels = image()
    before = pixels.copy()
    host.ImagePipeline(Preprocessing.of(mean=127, std=128, channel_order="bgr"), (36, 48))(pixels)
    assert np.array_equal(pixels, before)


@pytest.mark.parametrize("kind", ["logits", "probabilities"])
@pytest.mark.parametrize("batch", [True, False])
def test_scores_are_resized_before_the_argmax(kind: str, batch: bool) -> None:
    scores = np.random.default_rng(0).standard_normal((9, 12, 5)).astype(np.float32)
    planes = torch.from_numpy(scores).permute(2, 0, 1)[None]
    wanted = F.interpolate(planes, (36, 48), mode="bilinear", align_corners=False)[0].argmax(0).numpy()
    result = host.to_mask(scores[None] if batch else scores, (36, 48), kind)  # type: ignore[arg-type]
    assert result.dtype == np.uint8
    assert np.array_equal(result, wanted)


@pytest.mark.parametrize(("kind", "threshold"), [("logits", 0.0), ("probabilities", 0.5)])
def test_one_channel_is_thresholded(kind: str, threshold: float) -> None:
    scores = np.random.default_rng(0).random((1, 6, 8, 1), np.float32) - (0.5 - threshold)
    assert np.array_equal(host.to_mask(scores, (6, 8), kind), scores[0, ..., 0] > threshold)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(1, 4, 6), (4, 6), (1, 4, 6, 1)])
@pytest.mark.parametrize("size", [(8, 12), (2, 3), (7, 5), (4, 6)])
def test_a_mask_is_resized_by_nearest_neighbour(shape: tuple[int, ...], size: tuple[int, int]) -> None:
    mask = np.random.default_rng(0).integers(0, 11, (4, 6))
    wanted = F.interpolate(torch.from_numpy(mask).double()[None, None], size, mode="nearest-exact")[0, 0].numpy()
    result = host.to_mask(mask.reshape(shape).astype(np.int32), size, "mask")
    assert result.dtype == np.uint8
    assert np.array_equal(result, wanted)


@pytest.mark.parametrize("shape", [(1, 1, 8, 3), (1, 8, 1, 3), (1, 8, 3)])
def test_a_side_of_one_pixel_is_not_taken_for_the_batch(shape: tuple[int, ...]) -> None:
    scores = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    height, width = shape[-3], shape[-2]
    assert np.array_equal(host.to_mask(scores, (height, width), "logits"), scores.reshape(height, width, 3).argmax(-1))


@pytest.fixture(scope="module")
def files(shapes_graph: Graph, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The trained network in float, in int8 with float ends, and in int8 from bytes."""
    root = tmp_path_factory.mktemp("files")
    writer.write(shapes_graph, root / "float.tflite")
    pipeline = host.ImagePipeline(shapes_graph.description.preprocessing, shapes_graph.input_size)
    samples = [pipeline(image(128, 160)) for _ in range(2)]
    kinds: tuple[Ends, ...] = ("float32", "image")
    for io in kinds:
        quantizer.quantize_int8(root / "float.tflite", root / f"{io}.tflite", samples, io=io)
    return {path.stem: path for path in root.glob("*.tflite")}


def test_end_to_end_of_every_kind_of_file(files: dict[str, Path]) -> None:
    pixels = image(128, 160)
    quick = end_to_end.time_end_to_end(list(files.values()), (128, 160), (128, 160), image=pixels)
    assert len(quick) == 3
    assert min(quick) > 0
    (larger,) = end_to_end.time_end_to_end([files["image"]], (1024, 1280), (1024, 1280))
    assert larger > 0


def test_the_runtime_has_a_part_of_the_time(files: dict[str, Path]) -> None:
    (found,) = end_to_end.time_in_app([files["float"]], image(256, 320), (1024, 1280), rounds=3)
    assert 0 < found.runtime_ms < found.whole_ms


def test_a_file_that_says_nothing_of_itself(files: dict[str, Path]) -> None:
    silent = replace(file.read(files["image"]), description=None)
    with pytest.raises(ModelError, match="has no description of its input and output"):
        host.App(silent)
    with pytest.raises(ModelError, match=r"has an input of shape \(1, 128, 160, 4\) instead of one"):
        host.App(replace(silent, inputs=(replace(silent.inputs[0], shape=(1, 128, 160, 4)),)), Description())


def app_of(files: dict[str, Path], shape: tuple[int, ...], scale: float, kind: str) -> host.App:
    """Around a file that gives int8 of that shape, zero point 3."""
    found = file.read(files["image"])
    output = TensorInfo("output", shape, "int8", scale, 3)
    return host.App(replace(found, outputs=(output,)), Description(output_kind=kind))  # type: ignore[arg-type]


@pytest.mark.parametrize(("kind", "scale", "threshold"), [("logits", 0.1, 3), ("probabilities", 1 / 16, 3 + 8)])
@pytest.mark.parametrize("batch", [True, False])
def test_one_quantised_channel(files: dict[str, Path], kind: str, scale: float, threshold: int, batch: bool) -> None:
    values = np.random.default_rng(0).integers(-128, 128, (1, 6, 8, 1)).astype(np.int8)
    app = app_of(files, values.shape, scale, kind)
    assert np.array_equal(app.mask(values if batch else values[0], (6, 8)), values[0, ..., 0] > threshold)


def test_quantised_classes_are_compared_as_they_are(files: dict[str, Path]) -> None:
    values = np.random.default_rng(0).integers(-128, 128, (1, 6, 8, 5)).astype(np.int8)
    assert np.array_equal(app_of(files, values.shape, 0.1, "logits").mask(values, (6, 8)), values[0].argmax(-1))


def test_integers_without_a_scale_are_classes(files: dict[str, Path]) -> None:
    values = np.random.default_rng(0).integers(0, 5, (1, 6, 8)).astype(np.int8)
    assert np.array_equal(app_of(files, values.shape, 0.0, "logits").mask(values, (6, 8)), values[0])
