"""Procedural texture: tiling fractal noise and anti-aliased stripes, in world coordinates."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

TILE = 256


@lru_cache(maxsize=8)
def noise_tile(exponent: float) -> Array:
    """Tiling noise (TILE, TILE) of about -1 to 1, whose amplitude falls with frequency as 1/f^exponent.

    The tile is always the same; scenes differ in the coordinates at which they read it.
    """
    rng = np.random.default_rng(20)
    frequency = np.hypot(np.fft.fftfreq(TILE)[:, None], np.fft.rfftfreq(TILE)[None])
    frequency[0, 0] = np.inf
    spectrum = frequency**-exponent * np.exp(2j * np.pi * rng.random(frequency.shape))
    tile: Array = np.fft.irfft2(spectrum, (TILE, TILE))
    tile = np.clip(tile / tile.std() / 2, -1.2, 1.2).astype(np.float32)
    tile.flags.writeable = False
    return tile


def noise(u: Array, v: Array, exponent: float = 1.0) -> Array:
    """Noise at texel coordinates (u, v), which wrap around; takes the nearest texel."""
    return noise_tile(exponent)[v.astype(np.int32) % TILE, u.astype(np.int32) % TILE]


def smooth_noise(u: Array, v: Array, exponent: float = 1.5) -> Array:
    """`noise`, interpolated bilinearly, for surfaces so near that single texels would show."""
    tile = noise_tile(exponent)
    u0, v0 = np.floor(u), np.floor(v)
    fu, fv = (u - u0).astype(np.float32), (v - v0).astype(np.float32)
    i, j = v0.astype(np.int32) % TILE, u0.astype(np.int32) % TILE
    i1, j1 = (i + 1) % TILE, (j + 1) % TILE
    upper = tile[i, j] * (1 - fu) + tile[i, j1] * fu
    lower = tile[i1, j] * (1 - fu) + tile[i1, j1] * fu
    return upper * (1 - fv) + lower * fv


def stripe(distance: Array, half_width: float, footprint: Array) -> Array:
    """Coverage 0-1 of a stripe at `distance` from its centre line, for pixels `footprint` wide (box filter)."""
    inside = np.minimum(distance + half_width, footprint / 2) + np.minimum(half_width - distance, footprint / 2)
    return np.clip(inside / footprint, 0, 1)


def stripes(position: Array, period: float, duty: float, footprint: Array) -> Array:
    """Coverage of repeating stripes that fill the share `duty` of each `period`; fades to `duty` far away."""
    distance = np.abs((position / period) % 1.0 - 0.5) * period
    sharp = stripe(distance, duty * period / 2, footprint)
    far = np.clip(footprint / period * 1.5 - 0.5, 0, 1)
    return sharp + (duty - sharp) * far


def hashed(i: Array, j: Array, salt: float) -> Array:
    """A repeatable number in 0-1 for each pair of integers, so that one window is lit and its neighbour is not."""
    return np.abs(np.sin(i * 12.9898 + j * 78.233 + salt) * 43758.5453) % 1.0
