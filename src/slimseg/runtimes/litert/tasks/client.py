"""Runs MediaPipe's own `ImageSegmenter`, if the package is installed, to check files that are written for it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimseg.errors import RuntimeFailure, one_line
from slimseg.runtimes import child

INSTALL = "pip install 'slimseg[mediapipe]'"
Pixels = NDArray[np.uint8]


def available() -> bool:
    """Whether MediaPipe can be imported; checked without importing it."""
    found = importlib.util.find_spec("mediapipe")
    return found is not None and found.origin is not None


def version() -> str:
    """Version of the installed package."""
    return importlib.metadata.version("mediapipe")


def category_masks(path: str | Path, images: Sequence[Pixels]) -> list[Pixels]:
    """Category masks (height, width) of RGB images (height, width, 3), made in a child process.

    Raises:
        RuntimeFailure: MediaPipe refuses the file, does not load, or crashes.
    """
    with child.Child() as process:  # not the shared one: MediaPipe loads threads and libraries that only it needs
        found: dict[str, Any] = process.call(f"{__name__}:segment", str(path), list(images), about=path)
    return list(found["category"])


def segment(path: str, images: Sequence[Pixels]) -> dict[str, Any]:
    """MediaPipe's results for images. Runs in the child process.

    Returns:
        `category`, masks (height, width); `confidence`, (height, width, masks) float32; and `labels`.

    Raises:
        RuntimeFailure: MediaPipe refuses the file or does not load.
    """
    try:
        import mediapipe
        from mediapipe.tasks.python import BaseOptions, vision
    except ImportError as error:
        raise RuntimeFailure(f"MediaPipe cannot be imported ({one_line(error)}): {INSTALL}") from error
    options = vision.ImageSegmenterOptions(
        base_options=BaseOptions(model_asset_path=path), output_confidence_masks=True, output_category_mask=True
    )
    try:
        segmenter = vision.ImageSegmenter.create_from_options(options)
    except (RuntimeError, ValueError, NotImplementedError) as error:
        raise RuntimeFailure(one_line(error)) from error
    with segmenter:
        category, confidence = [], []
        for image in images:
            found = segmenter.segment(mediapipe.Image(mediapipe.ImageFormat.SRGB, np.ascontiguousarray(image)))
            category.append(found.category_mask.numpy_view().reshape(image.shape[:2]).copy())
            masks = [mask.numpy_view().reshape(image.shape[:2]) for mask in found.confidence_masks]
            confidence.append(np.stack(masks, -1))
        return {"category": category, "confidence": confidence, "labels": list(segmenter.labels)}
