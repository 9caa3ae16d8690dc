"""Synthetic images on which two networks are compared if the user gives none: noise with the spectrum of photographs.

The amplitudes of natural images fall as one over the frequency (Field, "Relations between the statistics of natural
images and the response properties of cortical cells", 1987). Noise with this spectrum, plus shapes of one colour and
fine noise, gives every layer about the range of values that it sees in use. A black and a white image add the extremes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]


def probe_images(size: tuple[int, int], count: int = 4, seed: int = 0) -> list[Pixels]:
    """`count` RGB images (height, width, 3), then a black one and a white one."""
    random = np.random.default_rng(seed)
    images = [_scene(random, size) for _ in range(count)]
    return [*images, np.zeros((*size, 3), np.uint8), np.full((*size, 3), 255, np.uint8)]


def _scene(random: np.random.Generator, size: tuple[int, int]) -> Pixels:
    image = np.stack([_one_over_f(random, size) for _ in range(3)], -1)
    rows, columns = np.mgrid[: size[0], : size[1]] / np.array(size).reshape(2, 1, 1)
    for _ in range(6):
        (y, x), (height, width) = random.random(2), 0.05 + 0.25 * random.random(2)
        inside = ((rows - y) / height) ** 2 + ((columns - x) / width) ** 2 < 1
        image[inside] = 0.3 * image[inside] + 0.7 * 255 * random.random(3)
    return np.clip(image + random.normal(0, 6, image.shape), 0, 255).astype(np.uint8)


def _one_over_f(random: np.random.Generator, size: tuple[int, int]) -> NDArray[np.float64]:
    rows, columns = np.meshgrid(np.fft.fftfreq(size[0]), np.fft.rfftfreq(size[1]), indexing="ij")
    spectrum = np.fft.rfft2(random.standard_normal(size)) / np.maximum(np.hypot(rows, columns), 1 / max(size))
    plane = np.fft.irfft2(spectrum, size)
    return np.asarray(128 + 50 * (plane - plane.mean()) / (plane.std() + 1e-9))
