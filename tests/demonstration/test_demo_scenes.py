"""The street scenes: repeatable, valid, varied, and laid out as slimseg reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from slimseg.demonstration.classes import Label
from slimseg.demonstration.scenes import CLASSES, PALETTE, SIZE, render, write_folder
from slimseg.errors import OutputError


@pytest.fixture(scope="module")
def scenes() -> list[tuple[np.ndarray, np.ndarray]]:
    return [render(seed) for seed in range(20)]


def test_one_seed_is_one_scene() -> None:
    for first, second in zip(render(7), render(7), strict=True):
        assert np.array_equal(first, second)
    assert np.mean(render(7)[1] != render(8)[1]) > 0.05


def test_types_shapes_and_indices(scenes: list[tuple[np.ndarray, np.ndarray]]) -> None:
    for image, mask in scenes:
        assert image.dtype == mask.dtype == np.uint8
        assert image.shape == (*SIZE, 3)
        assert mask.shape == SIZE
        assert mask.max() < len(CLASSES) == len(PALETTE)


def test_every_class_occurs_and_none_is_a_sliver(scenes: list[tuple[np.ndarray, np.ndarray]]) -> None:
    counts = np.bincount(np.concatenate([mask.ravel() for _, mask in scenes]), minlength=len(CLASSES))
    assert (counts / counts.sum() > 0.003).all()
    assert (counts / counts.sum() < 0.5).all()


def test_pictures_are_neither_flat_nor_clipped(scenes: list[tuple[np.ndarray, np.ndarray]]) -> None:
    for image, _ in scenes:
        assert image.std() > 20
        assert np.mean((image == 0) | (image == 255)) < 0.1


def test_layout_agrees_with_perspective(scenes: list[tuple[np.ndarray, np.ndarray]]) -> None:
    """Road at the bottom and never at the top; sky never at the bottom."""
    for _, mask in scenes:
        assert Label.ROAD in mask[-1]
        assert not np.isin(mask[: SIZE[0] // 4], (Label.ROAD, Label.PAVEMENT)).any()
        assert Label.SKY not in mask[SIZE[0] * 3 // 4 :]


def test_a_sign_post_is_at_least_three_pixels_wide(scenes: list[tuple[np.ndarray, np.ndarray]]) -> None:
    """Runs of sign along rows, but for those cut by the border or by something in front, are not thin."""
    runs = []
    for _, mask in scenes:
        padded = np.pad(mask == Label.SIGN, ((0, 0), (1, 1))).astype(np.int8)
        steps = np.diff(padded, axis=1)
        runs.append(np.argwhere(steps == -1)[:, 1] - np.argwhere(steps == 1)[:, 1])
    assert np.mean(np.concatenate(runs) >= 3) > 0.95


def test_the_scene_does_not_depend_on_the_size() -> None:
    large, small = render(3)[1], render(3, (96, 128))[1]
    assert np.mean(large[::2, ::2] == small) > 0.93


@pytest.mark.parametrize("size", [(32, 32), (64, 256), (120, 80)])
def test_any_size(size: tuple[int, int]) -> None:
    for seed in range(40, 50):
        image, mask = render(seed, size)
        assert image.shape[:2] == mask.shape == size


def test_folder_has_slimsegs_layout(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    write_folder(tmp_path, 2, 1, seed=5, size=(48, 64), progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert (tmp_path / "classes.txt").read_text(encoding="utf-8").split() == list(CLASSES)
    for split, count in (("train", 2), ("val", 1)):
        images = sorted((tmp_path / split / "images").iterdir())
        masks = sorted((tmp_path / split / "masks").iterdir())
        assert [path.stem for path in images] == [path.stem for path in masks]
        assert len(images) == count
        for path in masks:
            with Image.open(path) as mask:
                assert mask.mode == "L"
                assert mask.size == (64, 48)


def test_splits_share_no_scene(tmp_path: Path) -> None:
    write_folder(tmp_path, train=4, val=4, seed=1, size=(48, 64))
    masks = {path.read_bytes() for path in tmp_path.glob("*/masks/*.png")}
    assert len(masks) == 8


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way", encoding="utf-8")
    with pytest.raises(OutputError, match="cannot be written"):
        write_folder(blocked, train=1, val=0)
    assert blocked.read_text(encoding="utf-8") == "in the way"
