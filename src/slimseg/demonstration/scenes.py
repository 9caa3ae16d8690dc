"""Generated street scenes with exact labels: the data of the built-in example.

A scene depends only on its seed and size; nothing is downloaded or read from disk.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from slimseg.demonstration import backdrop, sprites
from slimseg.demonstration.canvas import Canvas
from slimseg.demonstration.classes import CLASSES, PALETTE
from slimseg.demonstration.texture import Array
from slimseg.demonstration.world import sample_camera, sample_light, sample_street
from slimseg.errors import OutputError

__all__ = ["CLASSES", "PALETTE", "SIZE", "render", "write_folder"]

SIZE = (192, 256)  # height, width: what the demo network was trained at
Bytes = npt.NDArray[np.uint8]


def render(seed: int, size: tuple[int, int] = SIZE) -> tuple[Bytes, Bytes]:
    """Draw one scene.

    Returns:
        image (H, W, 3) uint8 RGB and mask (H, W) uint8 with an index into `CLASSES` at every pixel.
    """
    rng = np.random.default_rng(seed)
    road = rng.uniform(3.2, 5.6)
    camera = sample_camera(rng, size, road)
    light = sample_light(rng)
    street = sample_street(rng, road)
    canvas = Canvas.blank(camera)
    backdrop.paint_sky(canvas, camera, light, street.salt)
    backdrop.paint_ground(canvas, camera, light, street)
    backdrop.paint_buildings(canvas, camera, light, street)
    for thing in street.things:
        sprites.paint_thing(canvas, camera, light, thing)
    return _develop(canvas.image, rng), canvas.mask


def _develop(linear: Array, rng: np.random.Generator) -> Bytes:
    """Convert light to bytes as a cheap camera does: exposure, white balance, tone curve, lens blur, noise."""
    exposure = rng.uniform(0.4, 0.58) / (float(linear.mean()) + 0.12)
    balance = (exposure * rng.uniform(0.93, 1.07, 3)).astype(np.float32)
    shown = np.sqrt(1 - np.exp(-1.15 * np.maximum(linear, 0) * balance)) * rng.uniform(0.95, 1.05)
    pixels = Image.fromarray(np.clip(shown * 255, 0, 255).astype(np.uint8))
    blurred = np.asarray(pixels.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 0.55))), np.float32)
    height, width = blurred.shape[:2]
    radius = np.hypot(np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)[None])
    vignette = (1 - rng.uniform(0, 0.12) * radius**2).astype(np.float32)[..., None]
    grain = rng.standard_normal(blurred.shape, np.float32) * rng.uniform(1, 4)
    return np.clip(blurred * vignette + grain, 0, 255).astype(np.uint8)


def write_folder(
    path: Path | str,
    train: int,
    val: int,
    seed: int = 0,
    size: tuple[int, int] = SIZE,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write scenes in slimseg's data layout: `train|val / images|masks`, and `classes.txt`.

    The two splits never share a scene. `progress` is called with (scenes written, scenes in total).

    Raises:
        OutputError: the folder cannot be written.
    """
    root, total = Path(path), train + val
    seeds = np.random.SeedSequence(seed).generate_state(total)
    try:
        for index in range(total):
            split, number = ("train", index) if index < train else ("val", index - train)
            _write_scene(root / split, f"{number:04d}", int(seeds[index]), size)
            if progress is not None:
                progress(index + 1, total)
        (root / "classes.txt").write_text("".join(f"{name}\n" for name in CLASSES), encoding="utf-8")
    except OSError as error:
        raise OutputError(f"the demo scenes cannot be written to {root} ({error}): give a folder with room") from error
    return root


def _write_scene(split: Path, name: str, seed: int, size: tuple[int, int]) -> None:
    for kind in ("images", "masks"):
        (split / kind).mkdir(parents=True, exist_ok=True)
    image, mask = render(seed, size)
    Image.fromarray(image).save(split / "images" / f"{name}.jpg", quality=95)
    Image.fromarray(mask).save(split / "masks" / f"{name}.png")
