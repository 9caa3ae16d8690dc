"""Read image files safely: they may come from anywhere.

The first bytes of a file determine its type, never its name: PNG, JPEG, WebP, BMP and TIFF are read, and no other
decoder ever runs. Photographs are turned upright by their EXIF orientation. Every unusable file gives an error of one
sentence.
"""

from __future__ import annotations

import os
import stat
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from slimseg.errors import DataError

MAX_PIXELS = 64_000_000  # phones take at most 8192x6144 by default, 50 million; reading more needs over 1 GB of memory
Pixels = NDArray[np.uint8]
Size = tuple[int, int]  # height, width

_READERS: dict[bytes, type[ImageFile.ImageFile]] = {
    b"\x89PNG\r\n\x1a\n": PngImageFile,
    b"\xff\xd8\xff": JpegImageFile,
    b"BM": BmpImageFile,
    b"II*\0": TiffImageFile,
    b"MM\0*": TiffImageFile,
    b"II+\0": TiffImageFile,  # BigTIFF, for files of more than 4 GB
    b"MM\0+": TiffImageFile,
}
_NOT_READ = {b"GIF8": "a GIF", b"%!PS": "PostScript", b"%PDF": "a PDF", b"\0\0\0\x0cjP  ": "a JPEG 2000 image"}
_BRANDS = {b"avif": "an AVIF image", b"avis": "an AVIF image"}  # by the brand after "ftyp", which videos have, too
_HEIC = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")
_FILE_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
# For each EXIF orientation the function that turns stored pixels upright; 1 is upright already
_TURNS: dict[int, Callable[[Pixels], Pixels]] = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: lambda pixels: np.rot90(pixels),
}
UPRIGHT = 1
_BAND_PIXELS = 4_000_000


@dataclass(frozen=True)
class Header:
    """Size and orientation of an image, read without decoding pixels."""

    size: Size  # upright
    orientation: int  # EXIF's, 1 to 8


@dataclass(frozen=True)
class Photograph:
    """An upright image."""

    pixels: Pixels  # RGB, (height, width, 3)
    orientation: int  # EXIF's, 1 to 8, before it was turned


def read_image(path: Path) -> Pixels:
    """RGB bytes (height, width, 3), upright.

    Raises:
        DataError: the file is no image, is damaged, has more than `MAX_PIXELS`, several frames, or more than 8 bits.
    """
    return read_photograph(path).pixels


def read_photograph(path: Path) -> Photograph:
    """The same as `read_image`, with EXIF's orientation.

    Raises:
        DataError: as `read_image`.
    """
    with opened(path) as picture:
        _require_bytes(path, picture)
        orientation = load(picture)
        pixels = _rgb(picture)
        return Photograph(pixels if _turns_itself(picture) else upright(pixels, orientation), orientation)


def _rgb(picture: ImageFile.ImageFile) -> Pixels:
    """A decoded picture as RGB (height, width, 3), converted in bands of rows: Pillow's whole copies need 1 GB."""
    pixels = np.empty((picture.height, picture.width, 3), np.uint8)
    rows = max(1, _BAND_PIXELS // picture.width)
    for top in range(0, picture.height, rows):
        band: Image.Image = picture.crop((0, top, picture.width, min(top + rows, picture.height)))
        if "transparency" in picture.info:
            band = band.convert("RGBA")  # as Pillow recommends, above all for palettes
        pixels[top : top + rows] = np.asarray(band.convert("RGB"))
    return pixels


def load(picture: ImageFile.ImageFile) -> int:
    """Decode an opened picture as it is stored and return EXIF's orientation; Pillow itself turns a TIFF upright."""
    before = _orientation(picture) if _turns_itself(picture) else UPRIGHT  # turning removes the orientation
    picture.load()
    return before if _turns_itself(picture) else _orientation(picture)  # in a PNG it may come after the pixels


def read_header(path: Path) -> Header:
    """Size and orientation without decoding pixels; a PNG whose EXIF data come last counts as upright.

    Raises:
        DataError: as `read_image`, as far as the header shows it.
    """
    with opened(path) as picture:
        _require_bytes(path, picture)
        orientation = _orientation(picture) if "exif" in picture.info or not isinstance(picture, PngImageFile) else 1
        turned = orientation > 4 and not _turns_itself(picture)
        return Header((picture.width, picture.height) if turned else (picture.height, picture.width), orientation)


def upright(pixels: Pixels, orientation: int) -> Pixels:
    """Turn stored pixels (height, width) or (height, width, 3) upright by EXIF's orientation."""
    return np.ascontiguousarray(_TURNS[orientation](pixels)) if orientation in _TURNS else pixels


@contextmanager
def opened(path: Path) -> Iterator[ImageFile.ImageFile]:
    """A file as Pillow's picture, with its header read and checked. Every error inside becomes a DataError.

    Raises:
        DataError: the file is no image that can be read; one sentence says why.
    """
    try:
        _require_file(path)
        with warnings.catch_warnings(), open(path, "rb", opener=_without_waiting) as file:
            warnings.simplefilter("ignore")  # about odd metadata: serious problems are errors
            reader = _reader(path, file.read(32))
            file.seek(0)
            picture = reader(file)
            _require_sane(path, picture)
            yield picture
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist") from error
    except PermissionError as error:
        raise DataError(
            f"{path} cannot be read for lack of permission: allow it, or remove it from the folder"
        ) from error
    except Exception as error:  # decoders raise any exception for a damaged file
        raise DataError(f"{path} is not an image that can be read: remove or replace it") from error


def kind(picture: ImageFile.ImageFile) -> str:
    """The type of a picture: "PNG", "JPEG", ..."""
    return str(picture.format)


def _require_file(path: Path) -> None:
    """Raise DataError unless `path` is a regular file: opening a pipe may block, opening a device have side effects."""
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        raise DataError(
            f"{path} is {_FILE_KINDS.get(stat.S_IFMT(mode), 'not a regular file')}, not an image: remove it"
        )


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _reader(path: Path, start: bytes) -> type[ImageFile.ImageFile]:
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return WebPImageFile
    for magic, reader in _READERS.items():
        if start.startswith(magic):
            return reader
    brand = start[8:12] if start[4:8] == b"ftyp" else b""
    known = next((name for magic, name in _NOT_READ.items() if start.startswith(magic)), "") or _BRANDS.get(brand, "")
    name = "a HEIC image" if brand in _HEIC else known
    if name:
        raise DataError(f"{path} is {name}, a format that is not supported: convert it to PNG or JPEG, or remove it")
    raise DataError(f"{path} is not an image that can be read (PNG, JPEG, WebP, BMP, TIFF): remove or replace it")


def _require_sane(path: Path, picture: ImageFile.ImageFile) -> None:
    if picture.width * picture.height > MAX_PIXELS:
        raise DataError(
            f"{path} has {picture.width}x{picture.height} pixels, more than the {MAX_PIXELS / 1e6:g} million that are "
            "read: scale it down"
        )
    if getattr(picture, "is_animated", False):
        raise DataError(f"{path} has several frames or pages: save one as an image")


def _require_bytes(path: Path, picture: ImageFile.ImageFile) -> None:
    """Raise DataError for more than 8 bits per channel, which Pillow would clip at 255: a white picture."""
    if picture.mode.partition(";")[0] in ("I", "F"):
        raise DataError(f"{path} has more than 8 bits per channel ({picture.mode}): convert it to 8 bits")


def _turns_itself(picture: ImageFile.ImageFile) -> bool:
    return isinstance(picture, TiffImageFile)


def _orientation(picture: ImageFile.ImageFile) -> int:
    """EXIF's orientation, or 1 if there is none or the EXIF data are damaged."""
    try:
        value = picture.getexif().get(ExifTags.Base.Orientation, UPRIGHT)
    except Exception:  # Pillow raises any exception for damaged metadata
        return UPRIGHT
    return value if value in _TURNS else UPRIGHT
