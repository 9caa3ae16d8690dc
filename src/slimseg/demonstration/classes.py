"""The classes of the demo's street scenes; their order gives the indices in every mask."""

from __future__ import annotations

from enum import IntEnum


class Label(IntEnum):
    SKY = 0
    BUILDING = 1
    ROAD = 2  # lane markings included
    PAVEMENT = 3
    VEGETATION = 4  # trees, hedges, grass
    CAR = 5
    PERSON = 6
    SIGN = 7  # traffic signs, traffic lights and lamps with their poles


CLASSES: tuple[str, ...] = tuple(label.name.lower() for label in Label)

PALETTE: tuple[tuple[int, int, int], ...] = (
    (120, 180, 235),
    (150, 105, 95),
    (105, 70, 135),
    (235, 155, 215),
    (90, 155, 55),
    (30, 70, 200),
    (225, 40, 70),
    (240, 205, 50),
)
"""One RGB colour per class, in the order of `CLASSES`."""
