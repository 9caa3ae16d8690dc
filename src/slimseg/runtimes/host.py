"""What an app does around the network: RGB bytes to the input, output to the class mask. The fastest way we know.

Measured on one thread, from 352x480 down to 192x256 and from 96x128x11 logits up to 352x480 (`benchmarks/heads.py`):
antialiased resize of uint8 in torch 0.2 ms (Pillow 0.9 ms); argmax of int8 logits in numpy 0.1 ms, upsampling the mask
0.4 ms (see `mask.py`). A file that takes bytes needs no more; for others the image is normalised with one multiply-add
and quantised as the file states.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from slimseg.errors import ModelError
from slimseg.graph.description import Description, OutputKind
from slimseg.graph.preprocessing import Preprocessing
from slimseg.runtimes.mask import bilinear, bilinear_argmax, nearest
from slimseg.tensors import TensorInfo, quantise

if TYPE_CHECKING:  # the child process, which needs no torch, starts sooner without
    from slimseg.graph.graph import Graph

Pixels = NDArray[np.uint8]


def resize_image(image: Pixels, size: tuple[int, int]) -> Pixels:
    """Resize RGB (h, w, 3) to (*size, 3), bilinearly with antialiasing; `size` is (height, width)."""
    if image.shape[:2] == tuple(size):
        return image
    import torch
    from torch.nn import functional as F

    planes = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None]
    resized = F.interpolate(planes, size, mode="bilinear", antialias=True)
    return resized[0].permute(1, 2, 0).contiguous().numpy()


class ImagePipeline:
    """Converts RGB bytes (h, w, 3) of any size to the network's input (height, width, 3) float32."""

    def __init__(self, preprocessing: Preprocessing, size: tuple[int, int]) -> None:
        self.size = size
        self.flip = preprocessing.channel_order == "bgr"
        scale = np.reciprocal(np.asarray(preprocessing.std, np.float32))
        shift = -np.asarray(preprocessing.mean, np.float32) * scale
        uniform = len(set(scale.tolist())) == len(set(shift.tolist())) == 1
        self.scale: Any = scale[0] if uniform else scale
        self.shift: Any = shift[0] if uniform else shift

    def __call__(self, image: Pixels) -> NDArray[np.float32]:
        return self.normalised(resize_image(image, self.size))

    def normalised(self, image: Pixels) -> NDArray[np.float32]:
        """The network's input (height, width, 3) from an image that has the input's size already."""
        value = image.astype(np.float32)
        if self.flip:
            value = value[..., ::-1]
        value *= self.scale
        value += self.shift
        return np.ascontiguousarray(value)


def prepared(graph: Graph, images: Sequence[Pixels]) -> list[NDArray[np.float32]]:
    """RGB images (h, w, 3) of any size as inputs of a network, float32 (1, height, width, 3) each."""
    pipeline = ImagePipeline(graph.description.preprocessing, graph.input_size)
    return [pipeline(image)[None] for image in images]


class Described(Protocol):
    """What a file of any runtime states about itself."""

    @property
    def path(self) -> Path: ...
    @property
    def description(self) -> Description | None: ...
    @property
    def inputs(self) -> tuple[TensorInfo, ...]: ...
    @property
    def outputs(self) -> tuple[TensorInfo, ...]: ...


class Runnable(Protocol):
    """A loaded file of any runtime."""

    @property
    def file(self) -> Described: ...

    def run_raw(self, value: NDArray[Any], /) -> NDArray[Any]:
        """Run on the result of `App.prepare` with a batch dimension of 1; the output is the argument of `App.mask`."""
        ...

    @property
    def invoke(self) -> Callable[[], Any]:
        """Runs the network alone, on the input that was set before."""
        ...


class App:
    """What an app does around one file: preprocessing before it, and making the mask after it.

    Args:
        model: what the file states about itself.
        description: preprocessing and the meaning of the output, for a file that does not state them.

    Raises:
        ModelError: the file does not take one image, or neither it nor `description` states preprocessing and output.
    """

    def __init__(self, model: Described, description: Description | None = None) -> None:
        found = description or model.description
        if found is None:
            raise ModelError(f"{model.path} has no description of its input and output: write it with slimseg")
        shape = model.inputs[0].shape
        if len(shape) != 4 or shape[3] != 3 or not all(shape):
            raise ModelError(f"{model.path} has an input of shape {shape} instead of one (1, height, width, 3) image")
        self.path = model.path
        self.description = found
        self.pipeline = ImagePipeline(found.preprocessing, (shape[1], shape[2]))
        self.input, self.output = model.inputs[0], model.outputs[0]
        self.tables = _tables(self.pipeline, self.input)

    def prepare(self, image: Pixels) -> NDArray[Any]:
        """Convert RGB bytes (h, w, 3) of any size to the file's input (height, width, 3), in the file's own type."""
        if self.tables is None:
            return self.pipeline(image)
        resized = resize_image(image, self.pipeline.size)
        if self.pipeline.flip:
            resized = resized[..., ::-1]
        if len(self.tables) > 1:
            return np.stack([table.take(resized[..., i]) for i, table in enumerate(self.tables)], -1)
        (table,) = self.tables
        return np.ascontiguousarray(resized) if _is_identity(table) else table.take(resized)

    def mask(self, output: NDArray[Any], size: tuple[int, int]) -> Pixels:
        """Convert the file's raw output, with or without batch dimension, to class indices of `size` (height, width).

        Raises:
            ModelError: the output is flat and its length is not a multiple of the number of input pixels.
        """
        kind, scores = self.description.output_kind, output
        if scores.ndim == len(self.output.shape) and scores.shape[0] == 1:
            scores = scores[0]
        scores = in_rows(scores, self.pipeline.size, self.path)
        if scores.dtype.kind == "b":
            scores = scores.astype(np.uint8)
        if scores.dtype.kind in "iu":
            if not self.output.scale and (scores.ndim == 2 or scores.shape[-1] == 1):
                kind = "mask"
            elif not self.output.scale:  # integer scores without a scale
                scores = scores if scores.dtype.itemsize == 1 else scores.astype(np.float32)
            elif kind == "mask" or scores.ndim == 2 or scores.shape[-1] == 1:  # needs real values
                scores = (scores.astype(np.float32) - self.output.zero_point) * np.float32(self.output.scale)
        return to_mask(scores, size, kind)


def _tables(pipeline: ImagePipeline, info: TensorInfo) -> tuple[NDArray[Any], ...] | None:
    """Tables from byte to input value: one for all channels, or one per channel in the file's order.

    None if the input is in floating point.
    """
    if np.dtype(info.dtype).kind not in "iu":
        return None
    every = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, 2)
    values = quantise(pipeline.normalised(every)[0], info)
    channels = tuple(np.ascontiguousarray(values[:, channel]) for channel in range(3))
    return channels[:1] if all(np.array_equal(channels[0], other) for other in channels) else channels


def _is_identity(table: NDArray[Any]) -> bool:
    return table.dtype == np.uint8 and np.array_equal(table, np.arange(256))


def to_mask(output: NDArray[Any], size: tuple[int, int], kind: OutputKind) -> Pixels:
    """Class indices (height, width) of `size` from one output of a file.

    Logits and probabilities, (h, w, classes) in float or still quantised to 8 bits, are resized bilinearly before the
    argmax; a single channel in float is thresholded; a mask (h, w) is resized by nearest neighbour.
    """
    if kind == "mask" or (output.dtype.kind in "iu" and output.dtype.itemsize > 1):
        batched = output.ndim == 4 or (output.ndim == 3 and output.shape[0] == 1)
        value = output[0] if batched else output
        return nearest(value.reshape(value.shape[:2]), size)
    value = output[0] if output.ndim == 4 else output
    scores = value[..., None] if value.ndim == 2 else value
    if scores.shape[-1] == 1:
        return np.asarray(bilinear(scores, size)[..., 0] > (0.5 if kind == "probabilities" else 0.0), np.uint8)
    return bilinear_argmax(scores, size)


def in_rows(output: NDArray[Any], size: tuple[int, int], path: str | Path) -> NDArray[Any]:
    """One output without its batch dimension, as scores (h, w, classes) or a mask (h, w).

    A flat output is taken to have the pixels of the file's input, `size` = (height, width).

    Raises:
        ModelError: the output is flat and its length is not a multiple of the number of input pixels.
    """
    if output.ndim == 3 or (output.ndim == 2 and output.shape[0] != size[0] * size[1]):
        return output
    if not output.size or output.size % (size[0] * size[1]):
        raise ModelError(
            f"{path} has {output.size} output values for an input of {size[0]}x{size[1]}, not a whole number per pixel"
        )
    return output.reshape(*size, -1)
