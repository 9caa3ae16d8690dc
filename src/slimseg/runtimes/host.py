"""What an app does around the network: RGB bytes to the input, output to the class mask. As fast as we know.

One thread, 352x480 down to 224x288 and 112x144x11 logits up to 352x480, medians on the machine this was chosen on:
uint8 antialiased resize by torch 0.2 ms (Pillow 1.0 ms); normalisation as one multiply-add 0.05 ms (table look-up
0.2 ms); bilinear resize in channels-last 1.2 ms (planar 2.6 ms); argmax over the last axis by numpy 3.3 ms (torch
4.9 ms, planar running maximum 3.0-3.7 ms).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimseg.errors import ModelError
from slimseg.graph.description import Description, OutputKind
from slimseg.graph.preprocessing import Preprocessing
from slimseg.runtimes import child

Pixels = NDArray[np.uint8]
ROUNDS = 15


def resize_image(image: Pixels, size: tuple[int, int]) -> Pixels:
    """RGB (h, w, 3) to (*size, 3), bilinear with antialiasing."""
    if image.shape[:2] == tuple(size):
        return image
    import torch
    from torch.nn import functional as F

    planes = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None]
    resized = F.interpolate(planes, size, mode="bilinear", antialias=True)
    return resized[0].permute(1, 2, 0).contiguous().numpy()


class ImagePipeline:
    """RGB bytes (h, w, 3) of any size to the network's input (height, width, 3) float32."""

    def __init__(self, preprocessing: Preprocessing, size: tuple[int, int]) -> None:
        self.size = size
        self.flip = preprocessing.channel_order == "bgr"
        scale = np.reciprocal(np.asarray(preprocessing.std, np.float32))
        shift = -np.asarray(preprocessing.mean, np.float32) * scale
        uniform = len(set(scale.tolist())) == len(set(shift.tolist())) == 1
        self.scale: Any = scale[0] if uniform else scale
        self.shift: Any = shift[0] if uniform else shift

    def __call__(self, image: Pixels) -> NDArray[np.float32]:
        value = resize_image(image, self.size).astype(np.float32)
        if self.flip:
            value = value[..., ::-1]
        value *= self.scale
        value += self.shift
        return np.ascontiguousarray(value)


def to_mask(output: NDArray[Any], size: tuple[int, int], kind: OutputKind) -> Pixels:
    """Class indices (height, width) of `size` from one output of a file.

    Logits and probabilities, (h, w, classes), are resized bilinearly before the argmax; one channel is thresholded;
    a mask (h, w) is resized by nearest neighbour.
    """
    if kind == "mask" or output.dtype.kind in "iu":
        batched = output.ndim == 4 or (output.ndim == 3 and output.shape[0] == 1)
        value = output[0] if batched else output
        return _nearest(value.reshape(value.shape[:2]), size)
    value = output[0] if output.ndim == 4 else output
    scores = _bilinear(value[..., None] if value.ndim == 2 else value, size)
    if scores.shape[-1] == 1:
        return np.asarray(scores[..., 0] > (0.5 if kind == "probabilities" else 0.0), np.uint8)
    return np.asarray(scores.argmax(-1), np.uint8)


def in_rows(output: NDArray[Any], size: tuple[int, int], path: str | Path) -> NDArray[Any]:
    """One output, without its batch, as scores (h, w, classes) or a mask (h, w).

    What a file gives flat has the pixels of its input, `size`.

    Raises:
        ModelError: it is flat and has other pixels.
    """
    if output.ndim == 3 or (output.ndim == 2 and output.shape[0] != size[0] * size[1]):
        return output
    if not output.size or output.size % (size[0] * size[1]):
        raise ModelError(f"{path} gives {output.size} numbers for an input of {size[0]}x{size[1]}: not one per pixel")
    return output.reshape(*size, -1)


def _bilinear(scores: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    if scores.shape[:2] == tuple(size):
        return scores
    import torch
    from torch.nn import functional as F

    planes = torch.from_numpy(np.ascontiguousarray(scores, np.float32))[None].permute(0, 3, 1, 2)
    return F.interpolate(planes, size, mode="bilinear", align_corners=False)[0].permute(1, 2, 0).numpy()


def _nearest(mask: NDArray[Any], size: tuple[int, int]) -> Pixels:
    """As torch's `nearest-exact`: the pixel whose centre is nearest."""
    rows, columns = (
        np.minimum(((np.arange(new) + 0.5) * old / new).astype(np.int64), old - 1)
        for old, new in zip(mask.shape, size, strict=True)
    )
    return np.asarray(mask[rows[:, None], columns], np.uint8)


def time_end_to_end(
    paths: Sequence[str | Path],
    image_size: tuple[int, int],
    mask_size: tuple[int, int],
    threads: int = 1,
    description: Description | None = None,
) -> tuple[float, ...]:
    """Median ms from RGB bytes of `image_size` to a class mask of `mask_size`, all files in turns, in the child.

    `description` is what a file from elsewhere wants and gives; those of slimseg say so themselves.

    Raises:
        ModelError: a file is damaged or does not say what its output means.
        RuntimeFailure: LiteRT refused a file or crashed.
    """
    target = "slimseg.runtimes.host:measure_end_to_end"
    names = [str(path) for path in paths]
    result: tuple[float, ...] = child.shared().call(
        target, names, image_size, mask_size, threads, description, about=names[-1]
    )
    return result


def measure_end_to_end(
    names: list[str], image_size: tuple[int, int], mask_size: tuple[int, int], threads: int, other: Description | None
) -> tuple[float, ...]:
    """What `time_end_to_end` runs in the child."""
    import torch

    from slimseg.runtimes.litert.session import Session

    torch.set_num_threads(threads)
    image = np.random.default_rng(0).integers(0, 256, (*image_size, 3), np.uint8)
    steps = []
    for name in names:
        session = Session(name, threads)
        description = session.file.description or other
        if description is None:
            raise ModelError(f"{name} does not say what it wants and gives: write it with slimseg")
        steps.append((session, ImagePipeline(description.preprocessing, session.input_shape[1:3]), description))  # type: ignore[arg-type]
    samples: list[list[float]] = [[] for _ in steps]
    for number in range(ROUNDS + 2):
        for (session, pipeline, description), own in zip(steps, samples, strict=True):
            start = time.perf_counter()
            _once(session, pipeline, description, image, mask_size)
            if number >= 2:  # the first two rounds warm up
                own.append(1e3 * (time.perf_counter() - start))
    return tuple(float(np.median(own)) for own in samples)


def _once(
    session: Any, pipeline: ImagePipeline, description: Description, image: Pixels, size: tuple[int, int]
) -> Pixels:
    output = in_rows(session.run(pipeline(image))[0], pipeline.size, session.file.path)
    return to_mask(output, size, description.output_kind)
