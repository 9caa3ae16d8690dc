"""What an app does around the network: RGB bytes to the input, output to the class mask. As fast as we know.

One thread, 352x480 down to 192x256 and 96x128x11 logits up to 352x480 (`benchmarks/heads.py`): uint8 antialiased
resize by torch 0.2 ms (Pillow 0.9 ms); nothing more where the file takes bytes, else normalisation as one multiply-add
and the file's own quantisation; argmax of int8 logits by numpy 0.1 ms, mask upsampled in 0.4 ms (see `mask.py`).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from slimseg import ratios
from slimseg.errors import ModelError
from slimseg.graph.description import Description, OutputKind
from slimseg.graph.preprocessing import Preprocessing
from slimseg.runtimes import calm, child
from slimseg.runtimes.mask import bilinear, bilinear_argmax, nearest

if TYPE_CHECKING:
    from slimseg.runtimes.litert.file import TensorInfo

Pixels = NDArray[np.uint8]
ROUNDS = 15
_REPEATS, _TURN_MS = 5, 20.0  # of a quick file within a round


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
        return self.normalised(resize_image(image, self.size))

    def normalised(self, image: Pixels) -> NDArray[np.float32]:
        """The input's values of an image that has its size already."""
        value = image.astype(np.float32)
        if self.flip:
            value = value[..., ::-1]
        value *= self.scale
        value += self.shift
        return np.ascontiguousarray(value)


class Described(Protocol):
    """What a file of any runtime says of itself."""

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
        """What `App.prepare` gives, with a batch of one, to what `App.mask` takes."""
        ...

    @property
    def invoke(self) -> Callable[[], Any]:
        """Runs the network alone, on the input that is in place."""
        ...


class App:
    """What an app does around one file, on both sides.

    Args:
        model: what the file says of itself.
        description: preprocessing and the meaning of the output, where the file does not say it.

    Raises:
        ModelError: the file does not take one image, or nobody says what it wants and gives.
    """

    def __init__(self, model: Described, description: Description | None = None) -> None:
        found = description or model.description
        if found is None:
            raise ModelError(f"{model.path} does not say what it wants and gives: write it with slimseg")
        shape = model.inputs[0].shape
        if len(shape) != 4 or shape[3] != 3 or not all(shape):
            raise ModelError(f"{model.path} takes {shape}, not one (1, height, width, 3) image")
        self.path = model.path
        self.description = found
        self.pipeline = ImagePipeline(found.preprocessing, (shape[1], shape[2]))
        self.input, self.output = model.inputs[0], model.outputs[0]
        self.tables = _tables(self.pipeline, self.input)

    def prepare(self, image: Pixels) -> NDArray[Any]:
        """RGB bytes (h, w, 3) of any size to the file's input (height, width, 3), in the file's own type."""
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
        """The file's raw output, with or without its batch, to class indices (height, width) of `size`."""
        kind, scores = self.description.output_kind, output
        if scores.ndim == len(self.output.shape) and scores.shape[0] == 1:
            scores = scores[0]
        scores = in_rows(scores, self.pipeline.size, self.path)
        if scores.dtype.kind == "b":
            scores = scores.astype(np.uint8)
        if scores.dtype.kind in "iu":
            if not self.output.scale and (scores.ndim == 2 or scores.shape[-1] == 1):
                kind = "mask"
            elif not self.output.scale:  # scores that were stored as whole numbers
                scores = scores if scores.dtype.itemsize == 1 else scores.astype(np.float32)
            elif kind == "mask" or scores.ndim == 2 or scores.shape[-1] == 1:  # its values count, not their order
                scores = (scores.astype(np.float32) - self.output.zero_point) * np.float32(self.output.scale)
        return to_mask(scores, size, kind)


def _tables(pipeline: ImagePipeline, info: TensorInfo) -> tuple[NDArray[Any], ...] | None:
    """The input of every byte, once or for each channel as the file has them; None where the input is float."""
    from slimseg.runtimes.litert.session import quantise

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

    Logits and probabilities, (h, w, classes) in float or still quantised in 8 bits, are resized bilinearly before the
    argmax; one channel of float is thresholded; a mask (h, w) is resized by nearest neighbour.
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


@dataclass(frozen=True)
class EndToEnd:
    """What one file takes in an app: medians in milliseconds."""

    runtime_ms: float  # from the prepared input to the output
    whole_ms: float  # from the image's bytes to its mask
    network_ms: float  # of the runtime's, the network alone

    def at_latency(self, latency_ms: float) -> float:
        """From the image's bytes to its mask, where the network alone takes `latency_ms`.

        What is done around a network slows down with the machine as the network does, and is never less than nothing.
        """
        return latency_ms * max(1.0, ratios.share(self.whole_ms, self.network_ms))


def time_end_to_end(
    paths: Sequence[str | Path],
    image_size: tuple[int, int],
    mask_size: tuple[int, int],
    threads: int = 1,
    description: Description | None = None,
    image: Pixels | None = None,
    latencies_ms: Sequence[float] | None = None,
) -> tuple[float, ...]:
    """Median ms from RGB bytes of `image_size` to a class mask of `mask_size`, all files in turns, in the child.

    `image`, RGB of any size, should be one of the user's: how long a mask takes depends on how many class borders it
    has. With `latencies_ms`, what the networks take beside one another, the result is at the pace of those. All else is
    as for `time_in_app`.
    """
    pixels = resize_image(_blurred() if image is None else image, image_size)
    found = time_in_app(paths, pixels, mask_size, threads, description)
    if latencies_ms is None:
        return tuple(each.whole_ms for each in found)
    return tuple(each.at_latency(ms) for each, ms in zip(found, latencies_ms, strict=True))


def time_in_app(
    paths: Sequence[str | Path],
    image: Pixels,
    mask_size: tuple[int, int],
    threads: int = 1,
    description: Description | None = None,
    rounds: int = ROUNDS,
) -> tuple[EndToEnd, ...]:
    """From the bytes of an RGB `image` (h, w, 3) to a class mask of `mask_size`, all files in turns, in the child.

    `paths` are `.tflite` files and ncnn's `.param`, in any mixture. An app with ncnn makes its input from bytes in C++
    (`ncnn::Mat::from_pixels`, `substract_mean_normalize`); what numpy takes for the same, and to bring channels to the
    front, stands in for it here (0.13 ms for 256x320, those 0.09). Scores are read where ncnn left them, as in an app.

    `description` is what a file from elsewhere wants and gives; those of slimseg say so themselves.

    Raises:
        ModelError: a file is damaged or does not say what its output means.
        RuntimeFailure: ncnn is not installed, a runtime refused its file or crashed.
    """
    target = "slimseg.runtimes.host:measure_end_to_end"
    names = [str(path) for path in paths]
    arguments = names, image, mask_size, threads, description, rounds
    result: tuple[EndToEnd, ...] = child.shared().call(target, *arguments, about=names[-1])
    return result


def _blurred() -> Pixels:
    """A picture of soft spots, for want of a photograph: noise alone would be nothing but borders."""
    return np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)


def measure_end_to_end(
    names: list[str],
    image: Pixels,
    mask_size: tuple[int, int],
    threads: int,
    other: Description | None,
    rounds: int = ROUNDS,
) -> tuple[EndToEnd, ...]:
    """What `time_in_app` runs in the child."""
    import torch

    torch.set_num_threads(threads)
    sessions = [session(name, threads) for name in names]
    apps = [App(loaded.file, loaded.file.description or other) for loaded in sessions]
    samples = [_Samples([], []) for _ in apps]
    everyone, order = list(zip(sessions, apps, samples, strict=True)), random.Random(0)
    for number in range(rounds + 2):
        # ncnn is 5% slower just after LiteRT, warmed up or not: that must not always be the same file.
        for loaded, app, own in order.sample(everyone, len(everyone)):
            # A video finds its caches as the last frame left them.
            warm_up = _once(loaded, app, image, mask_size, threads)
            if number >= 2:
                repeats = min(_REPEATS, 1 + int(_TURN_MS / warm_up.whole_ms))
                own.images.extend(_once(loaded, app, image, mask_size, threads) for _ in range(repeats))
                own.networks_ms.append(calm.timed(loaded.invoke, threads)[1:])
    return tuple(own.end_to_end() for own in samples)


def session(path: str | Path, threads: int = 1) -> Runnable:
    """A file loaded into this process by the runtime that it is for.

    Raises:
        ModelError: the file is missing or damaged.
        RuntimeFailure: it is for ncnn, which is not installed or refuses it.
    """
    if Path(path).suffix == ".param":
        from slimseg.runtimes.ncnn.session import Session as NcnnSession

        return NcnnSession(path, threads)
    from slimseg.runtimes.litert.session import Session

    return Session(path, threads)


@dataclass(frozen=True)
class _Image:
    """Milliseconds of one image."""

    parts_ms: tuple[float, float, float]  # to the prepared input, from there to the output, from there to the mask
    taken_ms: float  # of all three, by other work

    @property
    def whole_ms(self) -> float:
        return sum(self.parts_ms)


@dataclass(frozen=True)
class _Samples:
    """Of one file."""

    images: list[_Image]
    networks_ms: list[tuple[float, float]]  # and what other work took

    def end_to_end(self) -> EndToEnd:
        """Medians over what nothing disturbed."""
        parts, taken = (np.array([getattr(each, name) for each in self.images]) for name in ("parts_ms", "taken_ms"))
        counting, _ = calm.undisturbed_rows(parts, np.zeros(len(parts)), taken, -(-len(parts) // 2))
        network = calm.values(*np.array(self.networks_ms).T)
        middle = (np.median(counting[:, 1]), np.median(counting.sum(1)), np.median(network))
        return EndToEnd(*(float(value) for value in middle))


def _once(loaded: Runnable, app: App, image: Pixels, mask_size: tuple[int, int], threads: int) -> _Image:
    """From an image to its mask."""
    value, *prepared = calm.timed(lambda: app.prepare(image)[None], threads)
    output, *computed = calm.timed(lambda: loaded.run_raw(value), threads)
    _, *resized = calm.timed(lambda: app.mask(output, mask_size), threads)
    (first, then, last), taken = zip(prepared, computed, resized, strict=True)
    return _Image((first, then, last), sum(taken))
