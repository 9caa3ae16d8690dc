"""The picture, painted from far to near, and its labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from slimseg.demonstration.classes import Label
from slimseg.demonstration.texture import Array
from slimseg.demonstration.world import Camera, Light

OVERSAMPLING = 3  # sprites are drawn at this scale and averaged, so that their edges are smooth


@dataclass(frozen=True)
class Canvas:
    """`image` (H, W, 3) float32 linear light; `mask` (H, W) uint8."""

    image: Array
    mask: Array

    @classmethod
    def blank(cls, camera: Camera) -> Canvas:
        shape = (camera.height_px, camera.width_px)
        return cls(np.zeros((*shape, 3), np.float32), np.zeros(shape, np.uint8))

    def paint(self, box: tuple[slice, slice], colour: Array, alpha: Array, label: Label) -> None:
        """Blend `colour` in with coverage `alpha` (h, w); pixels covered by at least half take the label."""
        view = self.image[box]
        view += (colour - view) * alpha[..., None]
        self.mask[box][alpha >= 0.5] = label

    def box(self, left: float, top: float, right: float, bottom: float) -> tuple[slice, slice]:
        """Rows and columns of a rectangle, cropped to the canvas; may be empty."""
        height, width = self.mask.shape
        rows = slice(int(np.clip(np.floor(top), 0, height)), int(np.clip(np.ceil(bottom), 0, height)))
        return rows, slice(int(np.clip(np.floor(left), 0, width)), int(np.clip(np.ceil(right), 0, width)))


def in_air(colour: Array, z: Array | float, light: Light) -> Array:
    """The colour as seen through z metres of haze."""
    haze = np.asarray(light.haze(z))[..., None] if np.ndim(z) else light.haze(z)
    result: Array = colour + (light.sky_low * 0.9 - colour) * haze
    return result


def encode(colour: Array) -> tuple[int, int, int]:
    """Linear colour to the bytes in which a sprite is drawn."""
    red, green, blue = (np.sqrt(np.clip(colour / 2, 0, 1)) * 255).astype(int)
    return int(red), int(green), int(blue)


def decode(sprite: Image.Image, size: tuple[int, int]) -> tuple[Array, Array]:
    """An oversampled RGBA sprite to linear colour (h, w, 3) and coverage (h, w)."""
    # Pillow resizes RGBA with premultiplied alpha, so the transparent black around a sprite does not darken its edge
    pixels = np.asarray(sprite.resize(size, Image.Resampling.BOX), np.float32) / 255
    return 2 * pixels[..., :3] ** 2, pixels[..., 3]
