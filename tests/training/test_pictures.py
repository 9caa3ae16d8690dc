"""Image files of every kind that people have, and of the kinds that harm: read as they are meant, or one sentence."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from slimseg.errors import DataError
from slimseg.training import pictures
from slimseg.training.pictures import read_header, read_image

# 2x3, upright: each pixel another colour
COLOURS = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]], [[255, 255, 0], [0, 255, 255], [255, 255, 255]]], np.uint8)


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, colour: int, *chunks: bytes, depth: int = 8, pixels: bytes = b"") -> bytes:
    """A PNG of any content, legal or not."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(chunks) + body


def shape_or_refusal(path: Path) -> tuple[int, ...] | None:
    """An image's shape; None where one sentence that names the file says that it is none."""
    try:
        return read_image(path).shape
    except DataError as error:
        message = str(error)
    assert message.startswith(f"{path} ")
    with suppress(DataError):
        read_header(path)
    return None


def stored_as(orientation: int) -> np.ndarray:
    """COLOURS as a camera would store them that is held so; from the table in the EXIF standard."""
    turned = {
        1: COLOURS,
        2: COLOURS[:, ::-1],
        3: COLOURS[::-1, ::-1],
        4: COLOURS[::-1],
        5: COLOURS.transpose(1, 0, 2),
        6: np.rot90(COLOURS, 1),
        7: COLOURS[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(COLOURS, -1),
    }
    return np.ascontiguousarray(turned[orientation])


@pytest.mark.parametrize("suffix", ["png", "tiff", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_are_turned_upright(tmp_path: Path, orientation: int, suffix: str) -> None:
    path = tmp_path / f"photo.{suffix}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored_as(orientation)).save(path, exif=exif, lossless=True)
    assert read_image(path).tolist() == COLOURS.tolist()
    header = read_header(path)
    assert (header.size, header.orientation) == ((2, 3), orientation)


def test_a_jpeg_is_turned_upright(tmp_path: Path) -> None:
    large = np.kron(COLOURS, np.ones((16, 16, 1), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.ascontiguousarray(np.rot90(large, 1))).save(
        tmp_path / "a.jpg", exif=exif, quality=95, subsampling=0
    )
    read = read_image(tmp_path / "a.jpg")
    assert read.shape == large.shape
    assert np.abs(read.astype(int) - large).mean() < 4
    assert read_header(tmp_path / "a.jpg").size == (32, 48)


def test_exif_data_behind_a_pngs_pixels_count_too(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = b"".join(b"\0" + row.tobytes() for row in stored_as(6))
    whole = png(2, 3, 2, pixels=pixels)
    end = len(whole) - 12
    (tmp_path / "late.png").write_bytes(whole[:end] + chunk(b"eXIf", exif.tobytes()[6:]) + whole[end:])
    assert read_image(tmp_path / "late.png").tolist() == COLOURS.tolist()


@pytest.mark.parametrize(
    "data", [b"", b"II*\0", b"MM\0*\xff\xff\xff\xff", b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x63\0\0\0"]
)
def test_damaged_orientation_says_nothing(tmp_path: Path, data: bytes) -> None:
    Image.fromarray(COLOURS).save(tmp_path / "a.png", exif=b"Exif\0\0" + data)
    assert read_image(tmp_path / "a.png").tolist() == COLOURS.tolist()


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n(ran) print\nshowpage\n%%EOF\n"


def test_postscript_called_png_starts_no_interpreter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interpreter that leaves a trace stands in the path, as it would on a machine that has one."""
    trace = tmp_path / "ran"
    for name in ("gs", "gswin32c", "gswin64c"):
        (tmp_path / name).write_text(f"#!/bin/sh\ntouch {trace}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert subprocess.run(["gs"], check=False).returncode == 0
    assert trace.exists()
    trace.unlink()
    (tmp_path / "street.png").write_bytes(POSTSCRIPT)
    with pytest.raises(DataError, match=r"street\.png is PostScript, a format that is not supported"):
        read_image(tmp_path / "street.png")
    assert not trace.exists()


@pytest.mark.parametrize(
    ("start", "name"),
    [
        (b"GIF89a", "a GIF"),
        (b"%PDF-1.7", "a PDF"),
        (b"\0\0\0\x18ftypheic", "a HEIC image"),
        (b"\0\0\0\x18ftypmif1", "a HEIC image"),
        (b"\0\0\0\x1cftypavif", "an AVIF image"),
        (b"8BPS\0\1", "not an image that can be read"),
        (b"P6\n2 2\n255\n", "not an image that can be read"),
        (b"", "not an image that can be read"),
    ],
)
def test_other_kinds_are_named_and_not_opened(tmp_path: Path, start: bytes, name: str) -> None:
    (tmp_path / "a.png").write_bytes(start + bytes(200))
    for read in (read_image, read_header):
        with pytest.raises(DataError, match=rf"a\.png is {name}"):
            read(tmp_path / "a.png")


def test_the_content_counts_and_not_the_name(tmp_path: Path) -> None:
    Image.fromarray(COLOURS).save(tmp_path / "a.bmp")
    (tmp_path / "a.bmp").rename(tmp_path / "a.JPG")
    assert read_image(tmp_path / "a.JPG").tolist() == COLOURS.tolist()


@pytest.mark.parametrize("what", ["pipe", "socket", "folder", "link", "device"])
def test_what_is_no_file_is_never_waited_for(tmp_path: Path, what: str) -> None:
    path = tmp_path / "x.png"
    if what == "pipe":
        os.mkfifo(path)
    elif what == "socket":
        holder = socket.socket(socket.AF_UNIX)
        home = os.getcwd()
        os.chdir(tmp_path)  # a socket's path is short
        holder.bind("x.png")
        os.chdir(home)
        holder.close()
    elif what == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero" if what == "device" else tmp_path / "nowhere")
    for read in (read_image, read_header):
        with pytest.raises(
            DataError, match=r"x\.png (is a (named pipe|socket|folder|device), not an image|does not exist)"
        ):
            read(path)


def test_a_picture_of_absurd_size_is_said_to_be_too_large(tmp_path: Path) -> None:
    (tmp_path / "huge.png").write_bytes(png(20_000, 20_000, 0))
    for read in (read_image, read_header):
        with pytest.raises(DataError, match=r"huge\.png has 20000x20000 pixels, more than the 64 million"):
            read(tmp_path / "huge.png")


MODES = {
    "1": lambda: Image.fromarray(COLOURS).convert("1"),
    "L": lambda: Image.fromarray(COLOURS).convert("L"),
    "LA": lambda: Image.fromarray(COLOURS).convert("LA"),
    "P": lambda: Image.fromarray(COLOURS).convert("P", palette=Image.Palette.ADAPTIVE, colors=5),
    "RGBA": lambda: Image.fromarray(COLOURS).convert("RGBA"),
    "RGB": lambda: Image.fromarray(COLOURS),
}


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    picture = MODES[mode]()
    picture.save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png"), np.array(picture.convert("RGB")))


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    Image.new("CMYK", (4, 4), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=95)
    red, green, blue = read_image(tmp_path / "a.jpg")[0, 0]
    assert red > 240
    assert max(green, blue) < 15


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_more_than_8_bits_of_grey_are_refused(tmp_path: Path, mode: str) -> None:
    Image.new(mode, (4, 4)).save(tmp_path / "a.tiff")
    for read in (read_image, read_header):
        with pytest.raises(DataError, match=r"a\.tiff has more than 8 bits"):
            read(tmp_path / "a.tiff")


def test_16_bits_of_colour_keep_the_upper_8(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(1, 1, 2, depth=16, pixels=b"\0" + struct.pack(">HHH", 65_535, 32_768, 255)))
    assert read_image(tmp_path / "a.png").tolist() == [[[255, 128, 0]]]


@pytest.mark.parametrize("entries", [1, 3, 255, 256])
@pytest.mark.parametrize("transparency", [None, b"", b"\0", bytes(range(256)), bytes(400)])
def test_palettes_of_every_length(tmp_path: Path, entries: int, transparency: bytes | None) -> None:
    """Indices beyond the palette and more transparency than colours: an image, or one sentence."""
    palette = chunk(b"PLTE", bytes(range(256)) * 3)[:0] + chunk(b"PLTE", (bytes(range(256)) * 3)[: 3 * entries])
    chunks = [palette] if transparency is None else [palette, chunk(b"tRNS", transparency)]
    (tmp_path / "p.png").write_bytes(png(4, 2, 3, *chunks, pixels=b"\0\0\1\2\xff\0\0\1\2\xff"))
    assert shape_or_refusal(tmp_path / "p.png") in ((2, 4, 3), None)


@pytest.mark.parametrize("chunks", [(), (chunk(b"PLTE", b"\1\2"),), (chunk(b"tRNS", b"\0"),), (chunk(b"PLTE", b""),)])
def test_a_broken_palette_is_an_image_or_one_sentence(tmp_path: Path, chunks: tuple[bytes, ...]) -> None:
    (tmp_path / "p.png").write_bytes(png(2, 1, 3, *chunks, pixels=b"\0\0\1"))
    assert shape_or_refusal(tmp_path / "p.png") in ((1, 2, 3), None)


@pytest.mark.parametrize("suffix", ["png", "webp", "tiff"])
def test_several_frames_are_refused(tmp_path: Path, suffix: str) -> None:
    first, second = Image.fromarray(COLOURS), Image.fromarray(255 - COLOURS)
    first.save(tmp_path / f"a.{suffix}", save_all=True, append_images=[second])
    with pytest.raises(DataError, match="several frames or pages"):
        read_image(tmp_path / f"a.{suffix}")


def test_a_phones_jpeg_with_a_second_picture_is_its_first(tmp_path: Path) -> None:
    """Multi-picture files, as phones write them with depth or gain maps, are called .jpg and begin with the photo."""
    large = np.kron(COLOURS, np.ones((16, 16, 1), np.uint8))
    first, second = Image.fromarray(large), Image.fromarray(255 - large)
    first.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[second], quality=95)
    assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - large).mean() < 8


@pytest.mark.parametrize("name", [b"zTXt", b"iTXt", b"iCCP"])
def test_compressed_metadata_is_bounded(tmp_path: Path, name: bytes) -> None:
    between = {b"zTXt": b"a\0\0", b"iTXt": b"a\0\1\0\0\0", b"iCCP": b"a\0\0"}[name]
    bomb = chunk(name, between + zlib.compress(bytes(30_000_000)))
    (tmp_path / "a.png").write_bytes(png(1, 1, 0, bomb, pixels=b"\0\0"))
    assert shape_or_refusal(tmp_path / "a.png") in ((1, 1, 3), None)


def test_a_tiff_of_hostile_tags_is_bounded(tmp_path: Path) -> None:
    """65,000 tags that each claim the whole file: read once, if at all."""
    count = 65_000
    size = 8 + 2 + 12 * count + 4
    tags = b"".join(struct.pack("<HHII", 300 + number % 60_000, 7, size, 0) for number in range(count))
    (tmp_path / "a.tiff").write_bytes(b"II*\0" + struct.pack("<IH", 8, count) + tags + bytes(4))
    with pytest.raises(DataError, match="is not an image"):
        read_image(tmp_path / "a.tiff")


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "tiff"])
def test_damaged_files_are_images_or_one_sentence(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    random = np.random.default_rng(0)
    exif = Image.Exif()
    exif[0x0112] = 6
    options = {} if suffix == "bmp" else {"exif": exif}
    Image.fromarray(random.integers(0, 256, (9, 12, 3), np.uint8)).save(path, **options)
    whole = path.read_bytes()
    for _ in range(60):
        damaged = bytearray(whole[: random.integers(0, len(whole))] if random.random() < 0.3 else whole)
        for place in random.integers(0, max(1, len(damaged)), 4):
            damaged[place : place + 1] = bytes([random.integers(0, 256)])
        path.write_bytes(damaged)
        shape_or_refusal(path)


def test_an_unreadable_file_is_said_to_be_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(COLOURS).save(tmp_path / "a.png")
    if os.geteuid() == 0:  # who may read everything

        def refused(path: str, flags: int) -> int:
            raise PermissionError(13, "Permission denied", path)

        monkeypatch.setattr(pictures, "_without_waiting", refused)
    else:
        (tmp_path / "a.png").chmod(0)
    with pytest.raises(DataError, match=r"a\.png cannot be read for lack of permission"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("mode", MODES)
def test_bands_are_one_picture(tmp_path: Path, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "_BAND_PIXELS", 5)
    picture = MODES[mode]().resize((4, 7))
    picture.save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png"), np.array(picture.convert("RGB")))
