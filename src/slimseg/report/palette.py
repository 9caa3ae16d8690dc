"""Colours for classes, and masks as colours over photographs."""

from __future__ import annotations

import colorsys
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

IGNORED = 255  # the mask value of pixels without a class

Colours = NDArray[np.uint8]  # (classes, 3), RGB

# Cityscapes' colours, which people who work with street scenes know; nearly black or grey ones are lighter here, so
# that they show over a photograph.
_KNOWN: dict[str, tuple[int, int, int]] = {
    "background": (38, 42, 54),
    "bicycle": (255, 127, 14),
    "bicyclist": (255, 127, 14),
    "building": (150, 84, 62),
    "bus": (0, 128, 160),
    "car": (30, 64, 214),
    "fence": (190, 153, 153),
    "grass": (152, 251, 152),
    "pavement": (244, 35, 232),
    "pedestrian": (220, 20, 60),
    "person": (220, 20, 60),
    "pole": (205, 205, 205),
    "rider": (255, 80, 0),
    "road": (128, 64, 128),
    "roadmarking": (255, 255, 255),
    "sidewalk": (244, 35, 232),
    "sign": (240, 220, 0),
    "signsymbol": (240, 220, 0),
    "sky": (70, 150, 210),
    "terrain": (152, 251, 152),
    "trafficlight": (250, 170, 30),
    "trafficsign": (240, 220, 0),
    "tree": (90, 150, 35),
    "truck": (0, 60, 100),
    "vegetation": (90, 150, 35),
}


def class_names(classes: Sequence[str], count: int) -> tuple[str, ...]:
    """`classes`, extended to `count` names with "class 7" and the like."""
    return tuple(classes[i] if i < len(classes) else f"class {i}" for i in range(max(count, len(classes))))


def colours(classes: Sequence[str]) -> Colours:
    """(classes, 3) RGB, all distinct: a known class's usual colour, else the colour farthest from those in use."""
    chosen: list[tuple[int, int, int] | None] = []
    for name in classes:
        usual = _KNOWN.get(re.sub(r"[^a-z]", "", name.lower()))
        chosen.append(None if usual in chosen else usual)
    taken = [colour for colour in chosen if colour is not None]
    fresh = iter(_farthest(taken, len(chosen) - len(taken)))
    rows = [next(fresh) if colour is None else colour for colour in chosen]
    return np.array(rows, np.uint8).reshape(-1, 3)


def colour_mask(mask: NDArray[np.uint8], palette: Colours) -> NDArray[np.uint8]:
    """(H, W) class indices to (H, W, 4) RGBA; pixels without a colour, such as `IGNORED` ones, are transparent."""
    table = np.zeros((256, 4), np.uint8)
    known = min(len(palette), IGNORED)
    table[:known, :3] = palette[:known]
    table[:known, 3] = 255
    return table[mask]


def css(colour: Sequence[int]) -> str:
    """(44, 160, 44) as "#2ca02c"."""
    return "#" + "".join(f"{int(channel):02x}" for channel in colour)


def _farthest(taken: Sequence[tuple[int, int, int]], count: int) -> list[tuple[int, int, int]]:
    """Pick `count` colours from a grid of vivid ones, each the farthest from all that are already used."""
    grid = np.array(
        [
            [round(255 * channel) for channel in colorsys.hsv_to_rgb(hue / 40, saturation, value)]
            for saturation in (0.85, 0.55, 0.3)
            for value in (0.95, 0.75, 0.5)
            for hue in range(40)
        ]
    )
    # Green counts most and blue least for the eye (the weights of luma, softened).
    weights = np.array([1.2, 1.5, 0.8])
    distance = np.full(len(grid), np.inf)
    for colour in taken:
        distance = np.minimum(distance, np.abs((grid - colour) * weights).sum(1))
    picked: list[tuple[int, int, int]] = []
    for _ in range(count):
        best = int(distance.argmax())
        red, green, blue = (int(channel) for channel in grid[best])
        picked.append((red, green, blue))
        distance = np.minimum(distance, np.abs((grid - grid[best]) * weights).sum(1))
    return picked
