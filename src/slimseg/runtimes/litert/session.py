"""Run a `.tflite` through LiteRT's public Python API, here or in the child process.

`Session` loads native code into this process; `predict` does the same in the child, where a crash does no harm.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from slimseg.errors import DataError
from slimseg.runtimes import child
from slimseg.runtimes.litert import file
from slimseg.runtimes.tensors import TensorInfo, dequantise, quantise

Array = np.ndarray[Any, Any]
_CHUNK_BYTES = 64 << 20  # of inputs or outputs per message to the child
_KEPT = 8  # sessions that the child keeps loaded


class Session:
    """One loaded file. `run` speaks float32 whatever the file's own types, and (de)quantises; `run_raw` speaks those.

    Raises:
        ModelError: the file is missing or damaged.
        ValueError, RuntimeError: LiteRT refuses it.
    """

    def __init__(self, path: str | Path, threads: int = 1) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self.file = file.read(path)
        self._interpreter = Interpreter(model_path=str(path), num_threads=threads)
        self._interpreter.allocate_tensors()
        self._input_index = self._interpreter.get_input_details()[0]["index"]
        self._output_index = self._interpreter.get_output_details()[0]["index"]
        self.invoke = self._interpreter.invoke

    @property
    def input_shape(self) -> tuple[int, ...]:
        """NHWC."""
        return self.file.inputs[0].shape

    def set_raw(self, value: Array) -> None:
        """Place an input of the file's own shape and type."""
        self._interpreter.set_tensor(self._input_index, value)

    def set_random(self) -> None:
        """Place random values in every input."""
        for detail, tensor in zip(self._interpreter.get_input_details(), self.file.inputs, strict=True):
            self._interpreter.set_tensor(detail["index"], random_input(tensor))

    def run_raw(self, value: Array) -> Array:
        """Input and output in the file's own types."""
        self.set_raw(value)
        self.invoke()
        result: Array = self._interpreter.get_tensor(self._output_index)
        return result

    def run(self, image: Array) -> Array:
        """One input, (1, H, W, C) or (H, W, C) float32, to the output as float32, or as integers if it is a mask."""
        value = np.asarray(image, np.float32)
        if value.shape == self.input_shape[1:]:
            value = value[None]
        if value.shape != self.input_shape:
            raise DataError(f"{self.file.path} wants an input of {self.input_shape}, not {value.shape}")
        return dequantise(self.run_raw(quantise(value, self.file.inputs[0])), self.file.outputs[0])


def random_input(info: TensorInfo, seed: int = 0) -> Array:
    """A normal input of the tensor's own shape and type: timing must not depend on an image."""
    value = np.random.default_rng(seed).standard_normal(info.shape, np.float32)
    if np.dtype(info.dtype).kind in "iu" and info.scale:
        value *= 40 * info.scale  # about the width of eight bits
    elif np.dtype(info.dtype).kind in "iu":
        value = np.abs(40 * value)  # bytes of an image
    return quantise(value, info)


def predict(
    path: str | Path,
    inputs: Array,
    threads: int = 1,
    timeout_s: float | None = None,
    within: child.Child | None = None,
    raw: bool = False,
) -> Array:
    """All outputs for `inputs` (N, H, W, C) float32, computed in the child one image at a time: (N, ...).

    `raw`: inputs and outputs are in the file's own types, instead.

    Raises:
        ModelError: the file is missing or damaged.
        DataError: `inputs` do not fit the file.
        RuntimeFailure: LiteRT refused the file, crashed, or a chunk took longer than `timeout_s`.
    """
    path = Path(path)
    model = file.read(path)
    if inputs.ndim != 4 or inputs.shape[1:] != model.inputs[0].shape[1:]:
        raise DataError(f"{path} wants inputs of (N, *{model.inputs[0].shape[1:]}), not {inputs.shape}")
    per_image = 4 * max(inputs[0].size if len(inputs) else 1, int(np.prod(model.outputs[0].shape)))
    step = max(1, _CHUNK_BYTES // per_image)
    process = within or child.shared()
    target = f"slimseg.runtimes.litert.session:{'run_raw' if raw else 'run'}"
    parts = [
        process.call(target, str(path), inputs[i : i + step], threads, timeout_s=timeout_s, about=path)
        for i in range(0, len(inputs), step)
    ]
    return np.concatenate(parts) if parts else np.zeros((0, *model.outputs[0].shape[1:]), np.float32)


_loaded: OrderedDict[tuple[str, int, int, int], Session] = OrderedDict()


def loaded(path: str, threads: int) -> Session:
    """A session kept from an earlier call, unless the file has changed since. For the child."""
    stat = file.stat(Path(path))
    key = (path, stat.st_mtime_ns, stat.st_size, threads)
    if key not in _loaded:
        _loaded[key] = Session(path, threads)
    _loaded.move_to_end(key)
    while len(_loaded) > _KEPT:
        _loaded.popitem(last=False)
    return _loaded[key]


def run(path: str, inputs: Array, threads: int = 1) -> Array:
    """`Session.run` on each of `inputs` (N, H, W, C), stacked. For the child."""
    session = loaded(path, threads)
    return np.concatenate([session.run(image) for image in inputs])


def run_raw(path: str, inputs: Array, threads: int = 1) -> Array:
    """`Session.run_raw` on each of `inputs` (N, H, W, C), stacked. For the child."""
    session = loaded(path, threads)
    return np.concatenate([session.run_raw(np.ascontiguousarray(image[None])) for image in inputs])
