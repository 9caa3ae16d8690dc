"""What the values of masks stand for: one file's, and what all files of a folder say together."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from slimseg.errors import DataError
from slimseg.training import data, masks
from slimseg.training.masks import Meaning, read_mask

CLASSES = np.array([[0, 1, 2], [255, 10, 3]], np.uint8)
BINARY = np.array([[0, 255, 0], [255, 255, 0]], np.uint8)


def saved(path: Path, values: object, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values)).save(path, "PNG", **options)
    return path


def with_palette(path: Path, indices: np.ndarray, palette: Iterable[int]) -> Path:
    picture = Image.new("P", indices.shape[::-1])
    picture.putdata(indices.ravel().tolist())
    picture.putpalette(list(palette))
    picture.save(path)
    return path


def grey(path: Path, samples: np.ndarray, depth: int) -> Path:
    """A grey PNG of few bits per pixel, which Pillow does not write."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    bits = np.unpackbits(samples.astype(np.uint8)[..., None], axis=-1)[..., -depth:]
    rows = np.packbits(bits.reshape(len(samples), -1), axis=-1)
    header = struct.pack(">IIBBBBB", samples.shape[1], samples.shape[0], depth, 0, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b""))
    return path


def folder(root: Path, *values: np.ndarray) -> Path:
    """Labelled images, half of them for training."""
    for number, each in enumerate(values):
        part = root / ("train" if number % 2 == 0 else "val")
        saved(part / "masks" / f"{number}.png", each)
        saved(part / "images" / f"{number}.png", np.zeros((*each.shape[:2], 3), np.uint8))
    return root


# One file


@pytest.mark.parametrize("mode", ["LA", "RGB", "RGBA"])
def test_equal_channels_are_one(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "m.png"
    Image.fromarray(CLASSES).convert(mode).save(path)
    assert read_mask(path, 11).tolist() == CLASSES.tolist()


@pytest.mark.parametrize(("depth", "highest"), [(1, 1), (2, 3), (4, 15)])
def test_few_bits_are_indices(tmp_path: Path, depth: int, highest: int) -> None:
    samples = np.arange(16).reshape(2, 8) % (highest + 1)
    assert read_mask(grey(tmp_path / "m.png", samples, depth), 16).tolist() == samples.tolist()


def test_a_coloured_palette_counts_by_its_indices(tmp_path: Path) -> None:
    colours = [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0] + [7, 8, 9] * 252
    assert read_mask(with_palette(tmp_path / "m.png", CLASSES, colours), 11).tolist() == CLASSES.tolist()


@pytest.mark.parametrize(
    ("palette", "indices", "wanted"),
    [
        ([255] * 3 + [0] * 3, [[0, 1]], [[1, 0]]),  # white first, as programs that shrink PNGs may leave it
        ([0] * 3 + [255] * 3, [[0, 1]], [[0, 1]]),
        ([255] * 3, [[0, 0]], [[1, 1]]),
        ([0] * 768, [[0, 3]], [[0, 3]]),  # a palette that says nothing
    ],
)
def test_a_palette_of_black_and_white(tmp_path: Path, palette: list[int], indices: object, wanted: object) -> None:
    path = with_palette(tmp_path / "m.png", np.array(indices, np.uint8), palette)
    assert read_mask(path, 4).tolist() == wanted


def test_a_palette_of_greys_in_another_order_is_refused(tmp_path: Path) -> None:
    path = with_palette(tmp_path / "m.png", np.array([[0, 1, 2]], np.uint8), [2] * 3 + [0] * 3 + [1] * 3)
    with pytest.raises(DataError, match=r"m\.png has a palette whose greys differ from their indices"):
        read_mask(path, 3)


def test_a_jpeg_called_png_is_refused(tmp_path: Path) -> None:
    Image.fromarray(CLASSES).save(tmp_path / "m.png", "JPEG")
    with pytest.raises(DataError, match=r"m\.png is a JPEG file, which changes values: give masks as PNG"):
        read_mask(tmp_path / "m.png")
    Image.fromarray(CLASSES).save(tmp_path / "m.png", "BMP")
    with pytest.raises(DataError, match=r"m\.png is a BMP file: give masks as PNG"):
        read_mask(tmp_path / "m.png")


def test_what_is_no_mask_says_why(tmp_path: Path) -> None:
    colours = np.zeros((2, 2, 3), np.uint8)
    colours[0, 0, 0] = 128
    with pytest.raises(DataError, match=r"RGB picture, not a mask: it has colours"):
        read_mask(saved(tmp_path / "m.png", colours))
    transparent = np.zeros((2, 2, 4), np.uint8)
    with pytest.raises(DataError, match="transparent pixels"):
        read_mask(saved(tmp_path / "m.png", transparent))


def test_soft_edges_are_one_sentence(tmp_path: Path) -> None:
    soft = np.array([[0, 255, 128, 64]], np.uint8)
    with pytest.raises(DataError, match=r"m\.png has 2 values between 0 and 255 .*`foreground` 255"):
        read_mask(saved(tmp_path / "m.png", soft), 2)
    assert read_mask(tmp_path / "m.png", 2, Meaning(255, told=True)).tolist() == [[0, 1, 0, 0]]


def test_another_foreground_is_offered(tmp_path: Path) -> None:
    wide = np.array([[0, 65_535]], np.uint16)
    with pytest.raises(DataError, match=r"class 65535, but there are 2 classes .*give `foreground` 65535"):
        read_mask(saved(tmp_path / "m.png", wide), 2)
    assert read_mask(tmp_path / "m.png", 2, masks.as_foreground("65535")).tolist() == [[0, 1]]


def test_255_stays_ignored_beside_another_foreground(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.png", np.array([[1, 2, 3, 255]], np.uint8))
    assert read_mask(path, 2, masks.as_foreground(1)).tolist() == [[1, 0, 0, 255]]
    assert read_mask(path, 2, masks.as_foreground(255)).tolist() == [[0, 0, 0, 1]]


@pytest.mark.parametrize("given", ["person", "-1", "65536", "1.5", ""])
def test_a_foreground_is_a_value(given: str) -> None:
    with pytest.raises(DataError, match="`foreground`"):
        masks.as_foreground(given)


@settings(max_examples=60, deadline=None)
@given(
    values=arrays.arrays(np.uint8, arrays.array_shapes(min_dims=2, max_dims=2, max_side=6)),
    foreground=st.one_of(st.none(), st.integers(0, 255)),
)
def test_every_value_is_read_as_what_it_stands_for_or_refused(
    tmp_path_factory: pytest.TempPathFactory, values: np.ndarray, foreground: int | None
) -> None:
    path = saved(tmp_path_factory.mktemp("any") / "m.png", values)
    if foreground is None:
        kept = read_mask(path)  # all values but 255 are below 255 classes
        assert np.array_equal(kept, values)
        return
    found = read_mask(path, 2, masks.as_foreground(foreground))
    assert np.array_equal(found == 1, values == foreground)
    ignored = (values == 255) & (foreground != 255)
    assert np.array_equal(found == 255, ignored)
    assert np.array_equal(found == 0, (values != foreground) & ~ignored)


# A folder


def test_masks_of_0_and_255_have_two_classes(tmp_path: Path) -> None:
    opened = data.open_folder(folder(tmp_path, BINARY, 255 - BINARY, BINARY * 0, BINARY | 255))
    assert opened.train.meaning == opened.val.meaning == Meaning(255)
    assert "255 is taken for the second of two classes" in opened.notes[0]
    read = [data.read_pair(split, index, 2)[1] for split in (opened.train, opened.val) for index in range(2)]
    wanted = [BINARY // 255, BINARY * 0, (255 - BINARY) // 255, BINARY * 0 + 1]
    assert [each.tolist() for each in read if each is not None] == [each.tolist() for each in wanted]


@pytest.mark.parametrize(
    "values", [[BINARY, CLASSES], [BINARY, BINARY * 0 + 1], [BINARY // 255, 1 - BINARY // 255]], ids=str
)
def test_any_other_value_makes_255_ignored(tmp_path: Path, values: list[np.ndarray]) -> None:
    opened = data.open_folder(folder(tmp_path, *values))
    assert opened.val.meaning == masks.CLASS_INDICES
    assert opened.notes == ()
    assert np.array_equal(data.read_pair(opened.train, 0, 11)[1], values[0])


def test_the_user_has_the_last_word(tmp_path: Path) -> None:
    root = folder(tmp_path, BINARY, BINARY)
    ignored = data.open_folder(root, "none")
    assert np.array_equal(data.read_pair(ignored.val, 0, 2)[1], BINARY)
    inverted = data.open_folder(root, 0)
    assert np.array_equal(data.read_pair(inverted.val, 0, 2)[1], np.where(BINARY == 0, 1, 255))
    assert ignored.notes == inverted.notes == ()
    assert data.open_folder(ignored, 255).val.meaning == Meaning(255, told=True)
    assert data.open_folder(ignored) is ignored


def test_a_foreground_that_no_mask_has(tmp_path: Path) -> None:
    root = folder(tmp_path, BINARY, BINARY)
    with pytest.raises(DataError, match=r"`foreground` 128 is in none of 2 masks of .*: give one of 0, 255"):
        data.open_folder(root, 128)


def test_a_network_of_more_classes_does_not_fit_them(tmp_path: Path) -> None:
    root = folder(tmp_path, BINARY, BINARY)
    with pytest.raises(DataError, match=r"only the values 0 and 255.* the network has 21: .*`foreground` none"):
        data.check_split(data.open_folder(root).val, 21)
    with pytest.raises(DataError, match=r"`foreground` 255 is for two classes"):
        data.check_split(data.open_folder(root, "255").val, 21)
    data.check_split(data.open_folder(root, "none").val, 21)


def test_a_stray_value_beside_0_and_255_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many masks, only some are looked at to find out what they stand for; none is misread."""
    monkeypatch.setattr(data, "LOOKED_AT", 4)
    root = folder(tmp_path, *(CLASSES if number == 7 else BINARY for number in range(20)))
    opened = data.open_folder(root)
    assert opened.val.meaning.foreground == 255
    with pytest.raises(DataError, match=r"7\.png has the value 1, but other masks have only 0 and 255"):
        data.check_split(opened.val, 2)


def test_masks_that_are_ignored_throughout_are_told(tmp_path: Path) -> None:
    root = folder(tmp_path, BINARY | 255, BINARY | 255)
    with pytest.raises(DataError, match=r"255 in every pixel, which is ignored"):
        data.open_folder(root)
    assert data.open_folder(root, 255).val.meaning.foreground == 255


# EXIF


def photograph(path: Path, stored: np.ndarray, orientation: int) -> Path:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(path, np.repeat(stored[..., None], 3, 2), exif=exif)


UPRIGHT = np.array([[0, 1, 2], [0, 0, 1]], np.uint8)


def pair(root: Path, image: np.ndarray, orientation: int, mask: np.ndarray, name: str = "a") -> None:
    for part in ("train", "val"):
        photograph(root / part / "images" / f"{name}.png", image, orientation)
        saved(root / part / "masks" / f"{name}.png", mask)


def read(root: Path, index: int = 0) -> np.ndarray:
    image, mask = data.read_pair(data.open_folder(root).val, index, 3)
    assert mask is not None
    assert np.array_equal(image[..., 0], UPRIGHT)
    return mask


@pytest.mark.parametrize("stored", [True, False], ids=["as stored", "upright"])
def test_a_quarter_turn_tells_how_masks_lie(tmp_path: Path, stored: bool) -> None:
    turned = np.ascontiguousarray(np.rot90(UPRIGHT, 1))
    pair(tmp_path, turned, 6, turned if stored else UPRIGHT)
    assert np.array_equal(read(tmp_path), UPRIGHT)
    opened = data.open_folder(tmp_path)
    data.check_split(opened.val, 3)
    assert opened.notes[0].endswith("turned with them" if stored else "left unchanged")


@pytest.mark.parametrize("stored", [True, False], ids=["as stored", "upright"])
def test_half_turns_follow_the_quarter_turns_of_their_folder(tmp_path: Path, stored: bool) -> None:
    quarter, half = np.ascontiguousarray(np.rot90(UPRIGHT, 1)), np.ascontiguousarray(UPRIGHT[::-1, ::-1])
    pair(tmp_path, quarter, 6, quarter if stored else UPRIGHT, "a")
    pair(tmp_path, half, 3, half if stored else UPRIGHT, "b")
    assert np.array_equal(read(tmp_path, 0), UPRIGHT)
    assert np.array_equal(read(tmp_path, 1), UPRIGHT)


def test_half_turns_alone_leave_masks_as_they_are(tmp_path: Path) -> None:
    pair(tmp_path, np.ascontiguousarray(UPRIGHT[::-1, ::-1]), 3, UPRIGHT)
    assert np.array_equal(read(tmp_path), UPRIGHT)
    assert "for example a.png; their masks are left unchanged" in data.open_folder(tmp_path).notes[0]


def test_a_masks_own_exif_data_count(tmp_path: Path) -> None:
    turned = np.ascontiguousarray(np.rot90(UPRIGHT, 1))
    pair(tmp_path, UPRIGHT, 1, UPRIGHT)
    exif = Image.Exif()
    exif[0x0112] = 6
    saved(tmp_path / "val" / "masks" / "a.png", turned, exif=exif)
    assert np.array_equal(read(tmp_path), UPRIGHT)
    pair(tmp_path, turned, 6, UPRIGHT)
    saved(tmp_path / "val" / "masks" / "a.png", turned, exif=exif)
    assert np.array_equal(read(tmp_path), UPRIGHT)
