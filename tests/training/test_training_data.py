"""Folders of images and masks: what is found, what is read, and that every bad input is one clear sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from slimseg.errors import DataError
from slimseg.training import data, pictures


def picture(path: Path, size: tuple[int, int] = (6, 8), seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)).save(path)
    return path


def mask(path: Path, values: object, mode: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(values))
    (image.convert(mode) if mode else image).save(path)
    return path


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    for split, count in (("train", 3), ("val", 2)):
        for index in range(count):
            picture(tmp_path / split / "images" / f"{split}{index}.jpg", seed=index)
            mask(tmp_path / split / "masks" / f"{split}{index}.png", np.full((6, 8), index, np.uint8))
    (tmp_path / "classes.txt").write_text("sky\nroad\n\ncar\n")
    return tmp_path


def test_a_folder_with_splits(labelled: Path) -> None:
    folder = data.open_folder(labelled)
    assert folder.classes == ("sky", "road", "car")
    assert [path.name for path in folder.train.images] == ["train0.jpg", "train1.jpg", "train2.jpg"]
    assert folder.val.masks is not None
    assert [path.stem for path in folder.val.masks] == [path.stem for path in folder.val.images]
    assert folder.labelled
    assert folder.split("val") is folder.val
    with pytest.raises(DataError, match="test"):
        folder.split("test")


@pytest.mark.parametrize("under", ["", "images"])
def test_images_alone_are_split_the_same_way_every_time(tmp_path: Path, under: str) -> None:
    for index in range(10):
        picture(tmp_path / under / f"{index}.png", seed=index)
    folder = data.open_folder(tmp_path)
    assert (len(folder.train.images), len(folder.val.images)) == (8, 2)
    assert not set(folder.train.images) & set(folder.val.images)
    assert not folder.labelled
    assert data.open_folder(tmp_path) == folder


def test_masks_follow_their_images_through_the_split(tmp_path: Path) -> None:
    for index in range(10):
        picture(tmp_path / "images" / f"{index}.png")
        mask(tmp_path / "masks" / f"{index}.png", np.zeros((6, 8), np.uint8))
    for split in (data.open_folder(tmp_path).train, data.open_folder(tmp_path).val):
        assert split.masks is not None
        assert [path.stem for path in split.masks] == [path.stem for path in split.images]


def test_one_image_alone_serves_both_splits(tmp_path: Path) -> None:
    picture(tmp_path / "only.png")
    folder = data.open_folder(tmp_path)
    assert len(folder.train.images) == len(folder.val.images) == 1


def test_samples_are_repeatable_and_bounded(labelled: Path) -> None:
    folder = data.open_folder(labelled)
    first, again = folder.sample_images(2, seed=1), folder.sample_images(2, seed=1)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert len(folder.sample_images(100)) == 3


@pytest.mark.parametrize(
    ("values", "mode"),
    [
        (np.array([[0, 10], [255, 3]], np.uint8), None),
        (np.array([[0, 10], [255, 3]], np.uint8), "P"),
        (np.array([[0, 10], [255, 3]], np.uint16), None),
    ],
    ids=["8 bit", "palette", "16 bit"],
)
def test_index_masks_of_every_depth_read_alike(tmp_path: Path, values: object, mode: str | None) -> None:
    read = data.read_mask(mask(tmp_path / "m.png", values, mode), classes=11)
    assert read.dtype == np.uint8
    assert read.tolist() == [[0, 10], [255, 3]]


def test_a_class_beyond_the_classes_names_file_value_and_count(tmp_path: Path) -> None:
    path = mask(tmp_path / "street.png", np.array([[0, 200]], np.uint8))
    with pytest.raises(DataError, match=r"street\.png has class 200.* 11 classes"):
        data.read_mask(path, classes=11)


def test_a_wide_class_is_never_wrapped_into_a_legal_one(tmp_path: Path) -> None:
    path = mask(tmp_path / "wide.png", np.array([[0, 259]], np.uint16))
    with pytest.raises(DataError, match="259"):
        data.read_mask(path)


def test_a_colour_mask_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"colour\.png is a RGB picture, not a mask"):
        data.read_mask(picture(tmp_path / "colour.png"))


def test_a_mask_of_another_size_names_both_sizes(tmp_path: Path) -> None:
    split = data.Split((picture(tmp_path / "a.jpg", (6, 8)),), (mask(tmp_path / "a.png", np.zeros((3, 4), np.uint8)),))
    with pytest.raises(DataError, match=r"a\.png is 3x4, but its image is 6x8"):
        data.read_pair(split, 0)


def test_all_masks_are_checked_before_the_work(labelled: Path) -> None:
    folder = data.open_folder(labelled)
    data.check_split(folder.train, 3)
    data.check_split(data.Split(folder.train.images, None), 3)
    with pytest.raises(DataError, match=r"train2\.png has class 2, but there are 2 classes"):
        data.check_split(folder.train, 2)
    mask(labelled / "train" / "masks" / "train1.png", np.zeros((3, 4), np.uint8))
    with pytest.raises(DataError, match=r"train1\.png is 3x4, but its image is 6x8"):
        data.check_split(folder.train, 3)
    (labelled / "train" / "images" / "train0.jpg").write_text("no image")
    with pytest.raises(DataError, match=r"train0\.jpg is not an image"):
        data.check_split(folder.train, 3)


def test_a_missing_mask_is_named(labelled: Path) -> None:
    (labelled / "train" / "masks" / "train1.png").unlink()
    with pytest.raises(DataError, match=r"no mask for train1\.jpg"):
        data.open_folder(labelled)


def test_what_is_not_an_image_is_said_to_be_none(tmp_path: Path) -> None:
    text = tmp_path / "text.png"
    text.write_text("not an image")
    with pytest.raises(DataError, match=r"text\.png is not an image"):
        data.read_image(text)
    whole = picture(tmp_path / "whole.png", (64, 64)).read_bytes()
    cut = tmp_path / "cut.png"
    cut.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"cut\.png is not an image"):
        data.read_image(cut)
    with pytest.raises(DataError, match="does not exist"):
        data.read_image(tmp_path / "none.png")


def test_an_image_of_absurd_size_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "MAX_PIXELS", 20)
    with pytest.raises(DataError, match="8x6 pixels"):
        data.read_image(picture(tmp_path / "large.png"))


def test_a_palette_image_with_transparency_reads_as_rgb_without_a_warning(tmp_path: Path) -> None:
    image = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(6, 8)).convert("P")
    image.save(tmp_path / "p.png", transparency=bytes(range(256)))
    assert data.read_image(tmp_path / "p.png").shape == (6, 8, 3)


def test_empty_and_missing_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no images"):
        data.open_folder(tmp_path)
    with pytest.raises(DataError, match="is not a folder"):
        data.open_folder(tmp_path / "nowhere")
    (tmp_path / "train").mkdir()
    with pytest.raises(DataError, match="only one of train and val"):
        data.open_folder(tmp_path)


def test_camvid(shared: Path) -> None:
    folder = data.open_folder(shared / "camvid")
    assert (len(folder.train.images), len(folder.val.images)) == (367, 101)
    assert len(folder.classes) == 11
    image, truth = data.read_pair(folder.val, 0, len(folder.classes))
    assert truth is not None
    assert image.shape[:2] == truth.shape
