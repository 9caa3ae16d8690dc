"""A picture of where an exported file's mask differs from the network's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from slimseg.disk import atomic
from slimseg.report import palette
from slimseg.report.images import DIFFERENCE_COLOURS, DIFFERS

Pixels = NDArray[np.uint8]
_WIDEST = 480  # pixels of one panel
_CAPTION = 18  # pixels of the caption above each panel
_GAP = 6


def write_overlay(path: Path, image: Pixels, wanted: Pixels, got: Pixels, classes: Sequence[str], name: str) -> Path:
    """A PNG of four panels: the photograph, the network's mask, the file's, and where they differ.

    Args:
        path: the file to write.
        image: RGB (height, width, 3), uint8.
        wanted, got: class indices (height, width).
        classes: class names, for their usual colours; further classes get other colours.
        name: the file's name, for the caption.

    Raises:
        OutputError: `path` cannot be written.
    """
    highest = int(max(wanted[wanted != palette.IGNORED].max(initial=0), got[got != palette.IGNORED].max(initial=0)))
    colours = palette.colours(palette.class_names(classes, highest + 1))
    grey = np.repeat(image.mean(-1, keepdims=True), 3, -1) * 0.5
    differs = wanted != got
    marked = np.where(differs[..., None], DIFFERENCE_COLOURS[DIFFERS], grey).astype(np.uint8)
    panels = (
        ("image", image),
        ("network", _coloured(wanted, colours)),
        (name, _coloured(got, colours)),
        (f"differs in {100 * differs.mean():.2f}%", marked),
    )
    return _saved(_side_by_side(panels), path)


def _coloured(mask: Pixels, colours: palette.Colours) -> Pixels:
    return palette.colour_mask(mask, colours)[..., :3]


def _side_by_side(panels: Sequence[tuple[str, Pixels]]) -> Image.Image:
    height, width = panels[0][1].shape[:2]
    scale = min(1.0, _WIDEST / width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    sheet = Image.new("RGB", (len(panels) * (size[0] + _GAP) - _GAP, size[1] + _CAPTION), "white")
    pen = ImageDraw.Draw(sheet)
    for number, (caption, pixels) in enumerate(panels):
        left = number * (size[0] + _GAP)
        # Averaging would make up colours between classes, and hide single pixels that differ.
        how = Image.Resampling.LANCZOS if number == 0 else Image.Resampling.NEAREST
        sheet.paste(Image.fromarray(pixels).resize(size, how), (left, _CAPTION))
        pen.text((left + 2, 3), caption[: size[0] // 6], fill="black")
    return sheet


def _saved(sheet: Image.Image, path: Path) -> Path:
    """Save the picture completely or not at all."""
    with atomic.replacing(path, durable=False) as stream:
        sheet.save(stream, "png", optimize=True)
    return path
