"""Which files of a folder count, and that nothing is left out without a word."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from slimseg.errors import DataError
from slimseg.training import data


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(path, "PNG")
    return path


def mask(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.eye(4, dtype=np.uint8)).save(path, "PNG")
    return path


def test_images_that_are_not_read_are_counted(tmp_path: Path) -> None:
    for name in ("a.png", "b.PNG", "c.JPeG"):
        picture(tmp_path / name)
    for name in ("IMG_1.heic", "IMG_2.HEIC", "d.gif", "e.avif", "f.dng", "notes.txt", "a.json"):
        (tmp_path / name).write_bytes(b"x")
    opened = data.open_folder(tmp_path)
    assert len(opened.train.images) + len(opened.val.images) == 3
    (note,) = opened.notes
    assert note.startswith("5 files (2 .heic, ")
    assert "for example IMG_1.heic" in note


def test_a_folder_of_nothing_else_says_what_to_convert(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.heic").write_bytes(b"x")
    with pytest.raises(DataError, match=r"convert its 3 files \(3 \.heic; for example 0\.heic\) to PNG or JPEG"):
        data.open_folder(tmp_path)


@pytest.mark.parametrize("name", [".DS_Store", "Thumbs.db", "desktop.ini", "._a.png", ".hidden.png"])
def test_what_systems_leave_behind_is_no_image(tmp_path: Path, name: str) -> None:
    picture(tmp_path / "images" / "a.png")
    mask(tmp_path / "masks" / "a.png")
    for part in ("images", "masks"):
        (tmp_path / part / name).write_bytes(b"x")
    opened = data.open_folder(tmp_path)
    assert [path.name for path in opened.val.images] == ["a.png"]
    assert opened.notes == ()


def test_a_pipe_among_images_is_told_at_once(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    os.mkfifo(tmp_path / "b.png")
    opened = data.open_folder(tmp_path)
    both = data.Split(tuple(sorted({*opened.train.images, *opened.val.images})), None)
    with pytest.raises(DataError, match=r"b\.png is a named pipe, not an image"):
        data.check_split(both, 2)


@pytest.mark.parametrize("other", ["a.jpg", "a.PNG"])
def test_two_images_of_one_name_are_refused(tmp_path: Path, other: str) -> None:
    picture(tmp_path / "a.png")
    picture(tmp_path / other)
    with pytest.raises(DataError, match="two images with the same name"):
        data.open_folder(tmp_path)


def test_two_masks_of_one_name_are_refused(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.png")
    mask(tmp_path / "masks" / "a.png")
    mask(tmp_path / "masks" / "a.PNG")
    with pytest.raises(DataError, match="two masks with the same name"):
        data.open_folder(tmp_path)


def test_masks_without_images_are_counted(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.png")
    for name in ("a", "b", "c"):
        mask(tmp_path / "masks" / f"{name}.png")
    (note,) = data.open_folder(tmp_path).notes
    assert note.startswith("2 masks")
    assert "for example b.png" in note


@pytest.mark.parametrize("there", ["a_mask.png", "a.jpg", "a.tif"])
def test_a_mask_of_another_name_is_named(tmp_path: Path, there: str) -> None:
    picture(tmp_path / "images" / "a.jpg")
    mask(tmp_path / "masks" / there)
    with pytest.raises(DataError, match=rf"no mask for a\.jpg, expected as a\.png \(there is {there}\)"):
        data.open_folder(tmp_path)


def test_masks_in_a_folder_of_another_name_are_told(tmp_path: Path) -> None:
    for part in ("train", "val"):
        picture(tmp_path / part / "images" / "a.png")
        mask(tmp_path / part / "labels" / "a.png")
    opened = data.open_folder(tmp_path)
    assert not opened.labelled
    assert "labels in" in opened.notes[0]
    assert "masks belong in" in opened.notes[0]


def test_images_further_down_are_pointed_at(tmp_path: Path) -> None:
    picture(tmp_path / "photos" / "a.png")
    with pytest.raises(DataError, match=r"has no images .*for example .*photos"):
        data.open_folder(tmp_path)


def test_names_of_classes_of_a_windows_editor(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "classes.txt").write_bytes("\ufeffsky\r\nröad\r\n".encode())
    assert data.open_folder(tmp_path).classes == ("sky", "röad")
    (tmp_path / "classes.txt").write_bytes(b"\xff\xfe\0")
    with pytest.raises(DataError, match="is not a text file"):
        data.open_folder(tmp_path)


def test_a_foreground_without_masks_is_a_mistake(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"`foreground` describes masks, and .* has none"):
        data.open_folder(tmp_path, 255)
