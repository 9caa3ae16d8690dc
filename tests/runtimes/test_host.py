"""What surrounds the network in an app: the same values as the plain formula, and masks at any size."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from slimseg.graph.preprocessing import Preprocessing
from slimseg.runtimes import host

RANDOM = np.random.default_rng(0)


def image(height: int = 36, width: int = 48) -> np.ndarray:
    return RANDOM.integers(0, 256, (height, width, 3), np.uint8)


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
    scores = RANDOM.standard_normal((9, 12, 5)).astype(np.float32)
    planes = torch.from_numpy(scores).permute(2, 0, 1)[None]
    wanted = F.interpolate(planes, (36, 48), mode="bilinear", align_corners=False)[0].argmax(0).numpy()
    result = host.to_mask(scores[None] if batch else scores, (36, 48), kind)  # type: ignore[arg-type]
    assert result.dtype == np.uint8
    assert np.array_equal(result, wanted)


@pytest.mark.parametrize(("kind", "threshold"), [("logits", 0.0), ("probabilities", 0.5)])
def test_one_channel_is_thresholded(kind: str, threshold: float) -> None:
    scores = RANDOM.random((1, 6, 8, 1), np.float32) - (0.5 - threshold)
    assert np.array_equal(host.to_mask(scores, (6, 8), kind), scores[0, ..., 0] > threshold)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(1, 4, 6), (4, 6), (1, 4, 6, 1)])
@pytest.mark.parametrize("size", [(8, 12), (2, 3), (7, 5), (4, 6)])
def test_a_mask_is_resized_by_nearest_neighbour(shape: tuple[int, ...], size: tuple[int, int]) -> None:
    mask = RANDOM.integers(0, 11, (4, 6))
    wanted = F.interpolate(torch.from_numpy(mask).double()[None, None], size, mode="nearest-exact")[0, 0].numpy()
    result = host.to_mask(mask.reshape(shape).astype(np.int32), size, "mask")
    assert result.dtype == np.uint8
    assert np.array_equal(result, wanted)


@pytest.mark.parametrize("shape", [(1, 1, 8, 3), (1, 8, 1, 3), (1, 8, 3)])
def test_a_side_of_one_pixel_is_not_taken_for_the_batch(shape: tuple[int, ...]) -> None:
    scores = RANDOM.standard_normal(shape).astype(np.float32)
    height, width = shape[-3], shape[-2]
    assert np.array_equal(host.to_mask(scores, (height, width), "logits"), scores.reshape(height, width, 3).argmax(-1))
