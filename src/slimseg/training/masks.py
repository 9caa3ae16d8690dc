"""Read mask files as class indices, and find out what the values of a folder's masks mean.

A mask is a PNG of one channel with up to 8 or with 16 bits, or one with a palette, whose indices count. Its values are
class indices, and 255 is ignored. The exception are masks of two classes in which the second has another value, most
often 255: the foreground. All masks of a folder together show which of the two it is (`foreground_of`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ImageFile

from slimseg.errors import DataError
from slimseg.training import pictures
from slimseg.training.pictures import Pixels

IGNORED = 255  # mask value of pixels that are ignored
WHITE = 255  # usual value of the second class in masks of two classes
LARGEST = 65_535  # largest value of a mask
_SAID = 8  # most values that a message lists
Values = NDArray[Any]


@dataclass(frozen=True)
class Meaning:
    """The meaning of the values in a folder's masks.

    `foreground` is the value of the second of two classes; None: values are class indices. If it was inferred from the
    masks, 0 is the only other value allowed; if the user gave it, all other values are.
    """

    foreground: int | None = None
    told: bool = False  # whether the user gave it
    as_stored: bool = False  # whether masks are oriented as the photograph is stored, not as EXIF turns it


CLASS_INDICES = Meaning()


@dataclass(frozen=True)
class Mask:
    """Class indices (height, width), 255 ignored, and whether the file's own EXIF data turned it."""

    pixels: Pixels
    turned: bool


def read_mask(path: Path, classes: int | None = None, meaning: Meaning = CLASS_INDICES) -> Pixels:
    """Class indices (height, width), 255 ignored.

    Raises:
        DataError: the file is no mask of indices, or an index is not below `classes`.
    """
    return read(path, classes, meaning).pixels


def read(path: Path, classes: int | None = None, meaning: Meaning = CLASS_INDICES) -> Mask:
    """The same as `read_mask`, with whether EXIF data turned it.

    Raises:
        DataError: as `read_mask`.
    """
    values, orientation = _values(path)
    found = _indices(path, values, classes) if meaning.foreground is None else _binary(path, values, classes, meaning)
    return Mask(pictures.upright(found, orientation), orientation != pictures.UPRIGHT)


def _indices(path: Path, values: Values, classes: int | None) -> Pixels:
    known = IGNORED if classes is None else classes
    wrong = values[(values != IGNORED) & ((values >= known) | (values < 0))]
    if wrong.size:
        raise DataError(_beyond(path, values, int(wrong.flat[0]), known, classes))
    return values.astype(np.uint8)


def _beyond(path: Path, values: Values, wrong: int, known: int, classes: int | None) -> str:
    """The message for a value that is no class."""
    seen = distinct(values)
    if classes == 2 and {0, WHITE} <= seen:
        between = f"{len(seen) - 2} value{'s' * (len(seen) > 3)} between 0 and 255"
        return (
            f"{path} has {between} (for example {wrong}), as from soft edges: make all of its pixels 0 or 255, or give "
            "`foreground` 255, which counts every other value as background"
        )
    there_are = f"at most {known}" if classes is None else f"{known}"
    message = f"{path} has class {wrong}, but there are {there_are} classes (0-{known - 1}, 255 ignored)"
    return f"{message}: give `foreground` {wrong} if that is the second class" if classes == 2 else message


def _binary(path: Path, values: Values, classes: int | None, meaning: Meaning) -> Pixels:
    """Class 1 where the mask has the foreground's value, class 0 elsewhere."""
    if classes is not None and classes > 2:
        raise DataError(_not_two(path, classes, meaning))
    found: Pixels = (values == meaning.foreground).astype(np.uint8)
    if not meaning.told:
        others = values[(values != 0) & (values != meaning.foreground)]
        if others.size:
            raise DataError(
                f"{path} has the value {int(others.flat[0])}, but other masks have only 0 and {meaning.foreground}, so "
                f"{meaning.foreground} was taken for the second of two classes: give `foreground` "
                f"{meaning.foreground}, or `foreground` none for class indices with 255 ignored"
            )
    elif meaning.foreground != IGNORED:
        found[values == IGNORED] = IGNORED
    return found


def _not_two(path: Path, classes: int, meaning: Meaning) -> str:
    if meaning.told:
        return f"`foreground` {meaning.foreground} is for two classes, but the network has {classes}: leave it out"
    return (
        f"{path} and all other masks have only the values 0 and {meaning.foreground}, as for two classes, but the "
        f"network has {classes}: give masks of class indices, or `foreground` none to ignore 255"
    )


def distinct(values: Values) -> set[int]:
    """The different values in a mask."""
    if values.dtype == np.uint8:
        return {int(value) for value in np.flatnonzero(np.bincount(values.ravel(), minlength=256))}
    return {int(value) for value in np.unique(values)}


def foreground_of(paths: Iterable[Path]) -> int | None:
    """The foreground, 255, if the masks have only the values 0 and 255; None: their values are class indices.

    Reading ends at the first mask with another value. Masks that cannot be read are reported when they are used.

    Raises:
        DataError: every pixel of every mask is 255.
    """
    seen: set[int] = set()
    last: Path | None = None
    for path in paths:
        with suppress(DataError):
            seen |= distinct(_values(path)[0])
            last = path
        if not seen <= {0, WHITE}:
            return None
    if seen == {WHITE}:
        raise DataError(
            f"{last} and all other masks are 255 in every pixel, which is ignored: give class indices, or `foreground` "
            "255 if that is the second of two classes"
        )
    return WHITE if WHITE in seen else None


def notes(folder: Path, meaning: Meaning) -> list[str]:
    """Notes for the user on masks whose foreground was inferred from their values."""
    if meaning.foreground is None:
        return []
    return [
        f"the masks in {folder} have only the values 0 and {meaning.foreground}, so {meaning.foreground} is taken "
        f"for the second of two classes: `foreground` {meaning.foreground} confirms this, `foreground` none ignores 255"
    ]


def require_somewhere(paths: Sequence[Path], foreground: int) -> None:
    """Check that a mask has the value `foreground`.

    Raises:
        DataError: masks can be read, but none of them has the value.
    """
    seen: set[int] = set()
    for path in paths:
        with suppress(DataError):
            seen |= distinct(_values(path)[0])
        if foreground in seen:
            return
    if seen:
        values = ", ".join(str(value) for value in sorted(seen)[:_SAID]) + (", ..." if len(seen) > _SAID else "")
        raise DataError(
            f"`foreground` {foreground} is in none of {len(paths)} masks of {paths[0].parent}: give one of {values}"
        )


def as_foreground(text: str | int) -> Meaning:
    """The meaning that the user gives: the value of the second class, or "none" for class indices.

    Raises:
        DataError: `text` is neither.
    """
    if str(text).strip().lower() == "none":
        return Meaning(told=True)
    try:
        value = int(text)
    except ValueError:
        value = -1
    if not 0 <= value <= LARGEST:
        raise DataError(f"`foreground` {text} is not a value of a mask: give a number from 0 to {LARGEST}, or none")
    return Meaning(value, told=True)


def _values(path: Path) -> tuple[Values, int]:
    """The stored value of every pixel (height, width), and EXIF's orientation.

    Raises:
        DataError: the file is no PNG of one channel.
    """
    with pictures.opened(path) as picture:
        if pictures.kind(picture) != "PNG":
            lossy = ", which changes values" if pictures.kind(picture) in ("JPEG", "WEBP") else ""
            raise DataError(f"{path} is a {pictures.kind(picture)} file{lossy}: give masks as PNG")
        stored = str(picture.tile)  # contains Pillow's name for the packing of samples, "L;2" for example
        orientation = pictures.load(picture)
        return _channel(path, picture, stored), orientation


def _channel(path: Path, picture: ImageFile.ImageFile, stored: str) -> Values:
    if picture.mode == "P":
        return _of_palette(path, picture)
    values = np.array(picture)
    if values.ndim == 2:
        # Pillow scales samples of 2 and 4 bits to 0-255: undo it
        step = next((255 // (2**bits - 1) for bits in (2, 4) if f"'L;{bits}'" in stored), 1)
        return (values.astype(np.uint8) if values.dtype == bool else values) // step
    return _of_channels(path, picture.mode, values, stored)


def _of_palette(path: Path, picture: ImageFile.ImageFile) -> Values:
    """The indices, or the class of each grey if the palette is black and white in another order.

    Programs that shrink grey PNGs leave palettes of greys in another order.

    Raises:
        DataError: the palette has other greys that differ from their indices.
    """
    values: Values = np.array(picture)
    colours = np.array(picture.getpalette() or [], np.uint8).reshape(-1, 3)
    levels = colours[:, 0]
    shown = {value: int(levels[value]) for value in distinct(values) if value < len(levels)}
    says_nothing = len(set(levels.tolist()) - {0}) == 0  # the palette is black throughout
    if (colours != colours[:, :1]).any() or says_nothing or all(level == value for value, level in shown.items()):
        return values
    if set(levels.tolist()) <= {0, WHITE} and len(set(shown.values())) == len(shown):
        return np.where(levels == WHITE, 1, 0)[values]
    raise DataError(
        f"{path} has a palette whose greys differ from their indices: save it as 8-bit grey, without palette"
    )


def _of_channels(path: Path, mode: str, values: Values, stored: str) -> Values:
    """One of several equal channels.

    Raises:
        DataError: the channels differ, have 16 bits, or some pixels are transparent.
    """
    colours, alpha = (values[..., :-1], values[..., -1]) if mode in ("LA", "RGBA") else (values, None)
    if alpha is not None and (alpha != 255).any():
        raise DataError(f"{path} has transparent pixels, whose class is unknown: give a PNG of one channel")
    if (colours != colours[..., :1]).any():
        raise DataError(
            f"{path} is a {mode} picture, not a mask: it has colours instead of class indices, so give a PNG of "
            "one channel or with a palette"
        )
    if "16" in stored:
        raise DataError(f"{path} has 16 bits in each of several channels: give a PNG of class indices, one channel")
    return np.ascontiguousarray(colours[..., 0])


def spread(paths: Sequence[Path], count: int) -> list[Path]:
    """At most `count` of the paths, evenly spread."""
    return [paths[int(place)] for place in np.unique(np.linspace(0, len(paths) - 1, min(count, len(paths))).round())]
