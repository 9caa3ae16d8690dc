"""The contents of a scene before any pixel is drawn: camera, light, street and the things that stand in it.

World coordinates in metres: x to the right, y up, z forward; the road runs along z, centred on x = 0.
Everything is sampled independently of the image size, so a seed gives the same scene at any size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from slimseg.demonstration.texture import Array

Generator = np.random.Generator
Kind = Literal["tree", "car", "person", "sign"]
FAR_M = 110.0  # the street ends here


@dataclass(frozen=True)
class Camera:
    """Pinhole camera that looks down the street."""

    height_px: int
    width_px: int
    focal_px: float
    horizon_row: float
    vanishing_col: float
    x: float
    y: float

    def project(self, x: Array | float, y: Array | float, z: Array | float) -> tuple[Array, Array]:
        """World point to (column, row)."""
        scale = self.focal_px / np.asarray(z)
        return self.vanishing_col + scale * (x - self.x), self.horizon_row - scale * (y - self.y)


@dataclass(frozen=True)
class Light:
    """Linear RGB. `sun` is the unit vector towards the sun."""

    sun: Array
    sun_colour: Array
    ambient: Array
    sky_top: Array
    sky_low: Array
    haze_per_m: float
    clouds: float
    evening: float  # 0 noon .. 1 dusk

    def on(self, normal: tuple[float, float, float]) -> Array:
        """The light (3,) that an unshadowed surface with this normal receives."""
        direct = max(0.0, float(self.sun @ np.asarray(normal)))
        received: Array = self.ambient * (0.75 + 0.25 * normal[1]) + self.sun_colour * direct
        return received

    def haze(self, z: Array | float) -> Array:
        """The share 0-1 of the haze colour at a distance of z metres."""
        share: Array = 1 - np.exp(-self.haze_per_m * np.asarray(z, dtype=np.float32))
        return share


@dataclass(frozen=True)
class Building:
    side: int  # -1 left, +1 right
    near: float
    far: float
    height: float
    wall: Array
    window: tuple[float, float, float, float]  # window period and glazed share along the wall, then both upwards
    shop: bool
    salt: float


@dataclass(frozen=True)
class Thing:
    """Something that stands on the ground at (x, z); `seed` determines its appearance."""

    kind: Kind
    x: float
    z: float
    height: float
    radius: float
    seed: int


@dataclass(frozen=True)
class Street:
    road: float  # half widths in metres, from the middle of the road
    pavement: float
    walls: float
    crossing: float  # z at which a zebra crossing begins; negative for none
    centre_line: bool
    edge_line: bool
    asphalt: Array
    slabs: Array
    grass: Array
    buildings: tuple[Building, ...]
    things: tuple[Thing, ...]
    salt: float


def _single(*values: float) -> Array:
    """An array in single precision, which halves the memory traffic of numpy's default."""
    return np.array(values, np.float32)


def sample_camera(rng: Generator, size: tuple[int, int], road: float) -> Camera:
    height, width = size
    focal, horizon, vanishing = rng.uniform(0.72, 0.95), rng.uniform(0.38, 0.52), rng.uniform(0.32, 0.68)
    x, y = rng.uniform(-0.45, 0.45) * road, rng.uniform(1.35, 2.5)
    return Camera(height, width, focal * width, horizon * height, vanishing * width, x, y)


def sample_light(rng: Generator) -> Light:
    elevation = np.deg2rad(rng.uniform(14, 62))
    azimuth = rng.uniform(0, 2 * np.pi)
    sun = _single(np.cos(elevation) * np.sin(azimuth), np.sin(elevation), np.cos(elevation) * np.cos(azimuth))
    evening = float(np.clip(1.3 - np.rad2deg(elevation) / 28, 0, 1) * rng.uniform(0.5, 1))
    overcast = float(rng.choice([0.0, 0.25, 0.6, 0.9], p=[0.4, 0.25, 0.2, 0.15]))
    warm = _single(1.0, 0.93 - 0.28 * evening, 0.84 - 0.5 * evening)
    blue = _single(0.2, 0.4, 0.78) * (1 - 0.3 * evening)
    grey = _single(0.62, 0.66, 0.72)
    top = blue * (1 - overcast) + grey * 0.75 * overcast
    low = _single(0.66 + 0.2 * evening, 0.74 - 0.14 * evening, 0.85 - 0.35 * evening)
    low = low * (1 - overcast) + grey * 1.1 * overcast
    return Light(
        sun=sun,
        sun_colour=warm * 1.25 * (1 - 0.92 * overcast),
        ambient=(0.5 * top + 0.5 * low) * (0.55 + 0.5 * overcast) + 0.06,
        sky_top=top,
        sky_low=low,
        haze_per_m=float(rng.choice([0.0025, 0.006, 0.013], p=[0.5, 0.35, 0.15])),
        clouds=float(rng.uniform(0, 1)),
        evening=evening,
    )


def sample_street(rng: Generator, road: float) -> Street:
    pavement = road + rng.uniform(1.8, 3.4)
    walls = pavement + max(0.0, rng.uniform(-2.5, 4.0))
    grey = rng.uniform(0.06, 0.15)
    slab = rng.uniform(0.24, 0.42)
    buildings = (*_row_of_buildings(rng, -1), *_row_of_buildings(rng, 1))
    crossing = rng.uniform(7, 22) if rng.random() < 0.35 else -1.0
    return Street(
        road=road,
        pavement=pavement,
        walls=walls,
        crossing=crossing,
        centre_line=rng.random() < 0.8,
        edge_line=rng.random() < 0.5,
        asphalt=grey * _single(1.0, 1.0, rng.uniform(1.0, 1.12)),
        slabs=slab * _single(1.0, rng.uniform(0.88, 0.97), rng.uniform(0.74, 0.95)),
        grass=_single(rng.uniform(0.09, 0.17), rng.uniform(0.19, 0.27), 0.055),
        buildings=buildings,
        things=_things(rng, road, pavement, walls, crossing),
        salt=rng.uniform(0, 1000),
    )


WALLS = (  # albedo: brick, sandstone, plaster, concrete, terracotta, slate, ochre, dark brick
    (0.42, 0.16, 0.1), (0.55, 0.45, 0.32), (0.6, 0.56, 0.5), (0.33, 0.32, 0.34),
    (0.6, 0.36, 0.2), (0.3, 0.36, 0.44), (0.62, 0.52, 0.25), (0.45, 0.25, 0.22),
)  # fmt: skip


def _row_of_buildings(rng: Generator, side: int) -> list[Building]:
    row, z = [], rng.uniform(-12, 2)
    base = rng.uniform(6, 16)
    while z < FAR_M:
        length = rng.uniform(8, 22)
        window = (rng.uniform(1.9, 3.4), rng.uniform(0.4, 0.68), rng.uniform(2.7, 3.4), rng.uniform(0.45, 0.65))
        wall = _single(*WALLS[rng.integers(len(WALLS))]) * _single(*rng.uniform(0.75, 1.2, 3))
        height = base * rng.uniform(0.6, 1.5)
        row.append(Building(side, z, z + length, height, wall, window, rng.random() < 0.45, rng.uniform(0, 1000)))
        z += length + (rng.uniform(3, 9) if rng.random() < 0.3 else 0.0)
    return row


def _things(rng: Generator, road: float, pavement: float, walls: float, crossing: float) -> tuple[Thing, ...]:
    things = [*_trees(rng, road, pavement, walls), *_cars(rng, road, crossing), *_people(rng, road, pavement, crossing)]
    for _ in range(rng.integers(1, 5)):
        side = rng.choice([-1, 1])
        things.append(_thing(rng, "sign", side * (road + rng.uniform(0.3, 0.6)), rng.uniform(5, 17), 3.0, 0.12))
    return tuple(sorted(things, key=lambda thing: -thing.z))


def _thing(rng: Generator, kind: Kind, x: float, z: float, height: float, radius: float) -> Thing:
    return Thing(kind, float(x), float(z), float(height), float(radius), int(rng.integers(1 << 31)))


def _trees(rng: Generator, road: float, pavement: float, walls: float) -> list[Thing]:
    trees = []
    for side in (-1, 1):
        if rng.random() < 0.25:
            continue
        z, gap = rng.uniform(7, 16), rng.uniform(7, 16)
        lateral = road + 0.9 if walls - pavement < 1.5 else (pavement + walls) / 2
        while z < 75:
            height = rng.uniform(4.2, 7.0)
            trees.append(_thing(rng, "tree", side * lateral, z, height, height * rng.uniform(0.26, 0.36)))
            z += gap * rng.uniform(0.8, 1.5)
    return trees


def _cars(rng: Generator, road: float, crossing: float) -> list[Thing]:
    cars = []
    for side, lateral in ((-1, road - 1.1), (1, road - 1.1), (-1, road * 0.42), (1, road * 0.42)):
        driving = lateral < road - 1.1
        if rng.random() < (0.45 if driving else 0.35) or (driving and road < 4.5):
            continue
        z = rng.uniform(8 if driving else 4.5, 18)
        while z < 60:
            if not crossing - 4.8 < z < crossing + 3.5:
                cars.append(_thing(rng, "car", side * lateral + rng.normal(0, 0.1), z, rng.uniform(1.4, 1.7), 0.9))
            z += rng.uniform(5.2, 9) * (2.2 if driving else 1.0) * (3 if rng.random() < 0.3 else 1)
    return cars


def _people(rng: Generator, road: float, pavement: float, crossing: float) -> list[Thing]:
    people = []
    for _ in range(rng.integers(1, 8)):
        side = rng.choice([-1, 1])
        x, z = side * rng.uniform(road + 0.5, pavement - 0.2), rng.uniform(4, 20)
        if crossing > 0 and rng.random() < 0.35:
            x, z = rng.uniform(-road, road), crossing + rng.uniform(0.4, 2.6)
        people.append(_thing(rng, "person", x, z, rng.uniform(1.6, 1.95), 0.3))
    return people
