"""Run an ncnn network, in this process or in the child process.

`Session` loads native code into this process; `predict` does the same in the child, where a crash does no harm.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from slimseg.errors import DataError, ModelError
from slimseg.runtimes import child
from slimseg.runtimes.kept import Kept
from slimseg.runtimes.ncnn import file
from slimseg.runtimes.ncnn.package import require

Array = np.ndarray[Any, Any]
_CHUNK_BYTES = 64 << 20  # most bytes of inputs per message to the child
_KEPT = 8  # sessions that the child keeps loaded


@dataclass(frozen=True)
class Options:
    """How ncnn computes. The defaults give float32 on every processor, to compare values.

    An app uses ncnn's own defaults, `APP`: half precision on processors that have it (ARMv8.2, but not x86), which is
    twice as fast.
    """

    half: bool = False  # fp16 storage and arithmetic
    bfloat16: bool = False  # bfloat16 storage, if `half` is not used
    packing: bool = True  # 4, 8 or 16 channels interleaved in memory, as wide as the processor's registers
    winograd: bool = True  # Winograd's algorithm for 3x3 convolutions (Lavin and Gray, 2016)

    def apply(self, option: Any) -> None:
        """Set these options on an `ncnn.Option`, before a network is loaded."""
        option.use_vulkan_compute = False
        option.use_fp16_packed = option.use_fp16_storage = option.use_fp16_arithmetic = self.half
        option.use_bf16_storage = self.bfloat16
        option.use_packing_layout = self.packing
        option.use_winograd_convolution = self.winograd


DEFAULTS = Options()
APP = Options(half=True)


class Session:
    """One loaded network: it takes one image and returns one blob, both float32.

    Blobs are allocated in a pool of this session, because ncnn copies a blob from the network's own pool before it
    returns it. So a `Mat` of this session must not outlive it.

    Raises:
        ModelError: a file is missing or damaged.
        RuntimeFailure: ncnn is not installed or refuses the files.
    """

    def __init__(self, path: str | Path, threads: int = 1, options: Options = DEFAULTS) -> None:
        self._ncnn = require()
        self.file = file.read(path)
        self._net = self._ncnn.Net()
        options.apply(self._net.opt)
        self._net.opt.num_threads = threads
        start = time.perf_counter()
        if self._net.load_param(str(self.file.param)) != 0:
            raise file.damaged(self.file.param, "does not know one of its layers")
        parsed = time.perf_counter()
        if self._net.load_model(str(self.file.bin)) != 0:
            raise file.damaged(self.file.bin, "finds too few weights")
        self.load_ms = 1e3 * (parsed - start)
        self.prepare_ms = 1e3 * (time.perf_counter() - parsed)  # weights are read and packed in one step
        self._pool = self._ncnn.PoolAllocator()  # kept here: extractors only point to it
        self._input: Any = None

    @property
    def net(self) -> Any:
        """The `ncnn.Net`."""
        return self._net

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the input in NHWC."""
        return (1, *self.file.input_shape)

    def set_image(self, image: Array) -> None:
        """Set the input, (H, W, C) or (1, H, W, C).

        Raises:
            DataError: its shape is not the file's.
        """
        value = np.asarray(image, np.float32)
        value = value[0] if value.ndim == 4 else value
        if value.ndim != 3 or not _fits(value.shape, self.file.input_shape):
            raise DataError(f"{self.file.param} needs an input of shape {self.file.input_shape}, not {value.shape}")
        planes = np.ascontiguousarray(value.transpose(2, 0, 1))
        self._input = self._ncnn.Mat(planes).clone()  # a copy whose planes are aligned

    def set_random(self, seed: int = 0) -> None:
        """Set a normally distributed input: timing must not depend on an image.

        Raises:
            ModelError: the file does not state the size of its input.
        """
        if not all(self.file.input_shape):
            raise ModelError(f"{self.file.param} does not state the size of its input: export it with slimseg")
        self.set_image(np.random.default_rng(seed).standard_normal(self.file.input_shape, np.float32))

    def extractor(self) -> Any:
        """A new `ncnn.Extractor` with the input set; it does not reuse results of other extractors."""
        result = self._net.create_extractor()
        result.set_blob_allocator(self._pool)
        result.input(self.file.input_name, self._input)
        return result

    def invoke(self) -> Any:
        """Run the network and return the output's `ncnn.Mat`. Raises: RuntimeFailure if ncnn fails."""
        code, result = self.extractor().extract(self.file.output_name)
        if code != 0:
            raise file.damaged(self.file.param, f"could not compute {self.file.output_name} (code {code})")
        return result

    def run_raw(self, value: Array) -> Array:
        """Run on one input (H, W, C) or (1, H, W, C); the output has no batch dimension, maps are (h, w, c).

        The output is not copied: it is a view, in planes, of this session's memory, and must not outlive the session.
        """
        self.set_image(value)
        found = np.asarray(self.invoke())
        return found.transpose(1, 2, 0) if found.ndim == 3 else found

    def run(self, image: Array) -> Array:
        """Run on one input (H, W, C) or (1, H, W, C); the output has a batch dimension of 1, maps are (1, h, w, c)."""
        self.set_image(image)
        return channels_last(np.array(self.invoke()))


def _fits(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Whether a shape is the one that the file states; 0 there stands for any size."""
    return all(own == other or not other for own, other in zip(shape, wanted, strict=True))


def channels_last(value: Array) -> Array:
    """A Mat's values (c, h, w) as (1, h, w, c) float32; to other ranks only the batch is added."""
    return (value.transpose(1, 2, 0) if value.ndim == 3 else value)[None].astype(np.float32)


def predict(
    path: str | Path,
    inputs: Array,
    threads: int = 1,
    timeout_s: float | None = None,
    within: child.Child | None = None,
    options: Options = DEFAULTS,
) -> Array:
    """All outputs (N, ...) for `inputs` (N, H, W, C) float32, computed in the child one image at a time.

    Args:
        timeout_s: seconds after which the child is killed, for each chunk of inputs; None waits for ever.
        within: the child process to run in; the shared one by default.

    Raises:
        ModelError: a file is missing or damaged.
        DataError: `inputs` do not fit the network.
        RuntimeFailure: ncnn is not installed, refused the files, crashed, or a chunk took longer than `timeout_s`.
    """
    path = Path(path)
    shape = file.read(path).input_shape
    if inputs.ndim != 4 or not len(inputs) or not _fits(inputs.shape[1:], shape):
        raise DataError(f"{path} needs one or more inputs of shape (N, *{shape}), not {inputs.shape}")
    step = max(1, _CHUNK_BYTES // (4 * max(1, inputs[0].size)))
    call: Callable[..., Any] = (within or child.shared()).call
    target = "slimseg.runtimes.ncnn.session:run"
    parts = [
        call(target, str(path), inputs[i : i + step], threads, options, timeout_s=timeout_s, about=path)
        for i in range(0, len(inputs), step)
    ]
    return np.concatenate(parts)


def values(
    path: str | Path,
    image: Array,
    names: Sequence[str],
    threads: int = 1,
    timeout_s: float | None = None,
    within: child.Child | None = None,
    options: Options = DEFAULTS,
) -> dict[str, Array]:
    """Outputs of layers for one input (H, W, C), maps as (1, h, w, c), to find the layer where two files depart.

    Args:
        names: names of layers, or of the graph nodes whose values they compute (`LayerLine.result`).

    Raises:
        ModelError: a file is missing or damaged, or has no layer of a given name.
        DataError: the input does not have the file's shape.
        RuntimeFailure: as for `predict`.
    """
    path = Path(path)
    layers = [layer for layer in file.read(path).layers if len(layer.outputs) == 1]
    known = {name: layer.outputs[0] for layer in layers for name in (layer.name, layer.result)}
    missing = [name for name in names if name not in known]
    if missing:
        raise ModelError(f"{path} has no layer {missing[0]!r} with one output: give a name from its second column")
    blobs = [known[name] for name in names]
    target = "slimseg.runtimes.ncnn.session:run_values"
    call: Callable[..., Any] = (within or child.shared()).call
    found = call(target, str(path), image, blobs, threads, options, timeout_s=timeout_s, about=path)
    return dict(zip(names, found, strict=True))


_loaded: Kept[Session] = Kept(_KEPT)


def loaded(path: str, threads: int, options: Options) -> Session:
    """A session of a network, kept from an earlier call if the files have not changed since. Runs in the child."""
    read = file.read(path)
    stats = (read.param.stat(), read.bin.stat())
    key = (path, threads, options, *((stat.st_mtime_ns, stat.st_size) for stat in stats))
    return _loaded.get(key, lambda: Session(path, threads, options))


def run(path: str, inputs: Array, threads: int = 1, options: Options = DEFAULTS) -> Array:
    """Outputs of `Session.run` for each of `inputs` (N, H, W, C), concatenated. Runs in the child."""
    session = loaded(path, threads, options)
    return np.concatenate([session.run(image) for image in inputs])


def run_values(path: str, image: Array, blobs: list[str], threads: int, options: Options) -> list[Array]:
    """The values of some blobs for one input. Runs in the child."""
    session = loaded(path, threads, options)
    session.set_image(image)
    order = [blob for layer in session.file.layers for blob in layer.outputs]
    extractor = session.extractor()
    found = {}
    for blob in sorted(set(blobs), key=order.index):  # in the file's order: ncnn frees a blob once its reader has run
        found[blob] = channels_last(np.array(extractor.extract(blob)[1]))
    return [found[blob] for blob in blobs]
