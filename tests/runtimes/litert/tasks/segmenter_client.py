"""MediaPipe's own client, for a process of its own: `python segmenter_client.py MODEL IMAGES.npy RESULT.npz`.

IMAGES are (N, H, W, 3) RGB bytes. RESULT holds `category` (N, H, W) uint8, `confidence` (N, H, W, masks) float32 and
`labels`; or, where MediaPipe refused the file, `refusal`.
"""

from __future__ import annotations

import sys
from typing import Any

import mediapipe
import numpy as np
from mediapipe.tasks.python import BaseOptions, vision


def run(model: str, images: np.ndarray) -> dict[str, Any]:
    options = vision.ImageSegmenterOptions(
        base_options=BaseOptions(model_asset_path=model), output_confidence_masks=True, output_category_mask=True
    )
    try:
        segmenter = vision.ImageSegmenter.create_from_options(options)
    except (RuntimeError, ValueError, NotImplementedError) as error:
        return {"refusal": np.asarray(str(error))}
    with segmenter:
        category, confidence = [], []
        for image in images:
            found = segmenter.segment(mediapipe.Image(mediapipe.ImageFormat.SRGB, np.ascontiguousarray(image)))
            category.append(found.category_mask.numpy_view().reshape(image.shape[:2]).copy())
            masks = [mask.numpy_view().reshape(image.shape[:2]) for mask in found.confidence_masks]
            confidence.append(np.stack(masks, -1))
        return {
            "category": np.stack(category),
            "confidence": np.stack(confidence),
            "labels": np.asarray(segmenter.labels, np.str_),
        }


if __name__ == "__main__":
    np.savez(sys.argv[3], **run(sys.argv[1], np.load(sys.argv[2])))
