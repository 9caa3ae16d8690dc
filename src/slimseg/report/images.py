"""Photographs and masks as data URLs, so that a page needs no other file."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from slimseg.report.palette import IGNORED, Colours, colour_mask

_LONGEST = 640  # pixels of an embedded picture's longer side: sharp on a screen, but a small file

SAME, DIFFERS, GAINED, LOST, BOTH_WRONG = range(5)
# Meaning is not carried by red or green alone: the two colours also differ in lightness.
DIFFERENCE_COLOURS: Colours = np.array(
    [(0, 0, 0), (255, 0, 200), (0, 200, 120), (240, 40, 60), (250, 180, 0)], np.uint8
)


@dataclass(frozen=True)
class Example:
    """One image with its masks, all at the same height and width.

    `image` (H, W, 3) RGB; `truth` (H, W), 255 ignored, or None; `before` and `after` (H, W) class indices.
    """

    name: str
    image: NDArray[np.uint8]
    truth: NDArray[np.uint8] | None
    before: NDArray[np.uint8]
    after: NDArray[np.uint8]


def difference(example: Example) -> NDArray[np.uint8]:
    """(H, W): where the masks differ and, if the truth is known, which of them is right."""
    differs = example.before != example.after
    if example.truth is None:
        return np.where(differs, DIFFERS, IGNORED).astype(np.uint8)
    known = differs & (example.truth != IGNORED)
    result = np.full(differs.shape, IGNORED, np.uint8)
    result[known] = BOTH_WRONG
    result[known & (example.before == example.truth)] = LOST
    result[known & (example.after == example.truth)] = GAINED
    return result


def agreement(mask: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """Percent of equal pixels, among those that `other` does not mark as ignored."""
    counted = other != IGNORED
    return 100.0 * float((mask == other)[counted].mean()) if counted.any() else 0.0


def photograph(image: NDArray[np.uint8]) -> str:
    """An RGB image as a JPEG data URL."""
    return _url(_fit(Image.fromarray(image), Image.Resampling.LANCZOS), "jpeg", quality=85)


def coloured(mask: NDArray[np.uint8], palette: Colours) -> str:
    """A mask as a PNG data URL, transparent where a pixel has no class."""
    return _url(_fit(Image.fromarray(colour_mask(mask, palette)), Image.Resampling.NEAREST), "png", optimize=True)


def _fit(picture: Image.Image, how: Image.Resampling) -> Image.Image:
    scale = _LONGEST / max(picture.size)
    if scale >= 1:
        return picture
    return picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))), how)


def _url(picture: Image.Image, kind: str, **options: int | bool) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
