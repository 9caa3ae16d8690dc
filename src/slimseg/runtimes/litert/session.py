"""Run a `.tflite` through LiteRT's public Python API, in this process or in the child process.

`Session` loads native code into this process; `predict` does the same in the child, where a crash does no harm.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from slimseg.errors import DataError
from slimseg.runtimes import child
from slimseg.runtimes.kept import Kept
from slimseg.tensors import TensorInfo, dequantise, quantise
from slimseg.tflite import file

Array = np.ndarray[Any, Any]
_CHUNK_BYTES = 64 << 20  # most bytes of inputs or outputs per message to the child
_KEPT = 8  # sessions that the child keeps loaded


class Session:
    """One loaded file. `run` takes and returns float32 and (de)quantises; `run_raw` uses the file's own types.

    Raises:
        ModelError: the file is missing or damaged.
        ValueError, RuntimeError: LiteRT refuses the file.
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
        """Shape of the input in NHWC."""
        return self.file.inputs[0].shape

    def set_raw(self, value: Array) -> None:
        """Set the input, in the file's own shape and type."""
        self._interpreter.set_tensor(self._input_index, value)

    def set_random(self) -> None:
        """Set every input to random values."""
        for detail, tensor in zip(self._interpreter.get_input_details(), self.file.inputs, strict=True):
            self._interpreter.set_tensor(detail["index"], random_input(tensor))

    def run_raw(self, value: Array) -> Array:
        """Run on one input; input and output are in the file's own types."""
        self.set_raw(value)
        self.invoke()
        result: Array = self._interpreter.get_tensor(self._output_index)
        return result

    def run(self, image: Array) -> Array:
        """Run on one input, (1, H, W, C) or (H, W, C) float32; the output is float32, or integers if it is a mask.

        Raises:
            DataError: the input's shape is not the file's.
        """
        value = np.asarray(image, np.float32)
        if value.shape == self.input_shape[1:]:
            value = value[None]
        if value.shape != self.input_shape:
            raise DataError(f"{self.file.path} needs an input of shape {self.input_shape}, not {value.shape}")
        return dequantise(self.run_raw(quantise(value, self.file.inputs[0])), self.file.outputs[0])


def random_input(info: TensorInfo, seed: int = 0) -> Array:
    """A normally distributed input of the tensor's own shape and type: timing must not depend on an image."""
    value = np.random.default_rng(seed).standard_normal(info.shape, np.float32)
    if np.dtype(info.dtype).kind in "iu" and info.scale:
        value *= 40 * info.scale  # uses about the whole range of 8 bits
    elif np.dtype(info.dtype).kind in "iu":
        value = np.abs(40 * value)  # like bytes of an image
    return quantise(value, info)


def predict(
    path: str | Path,
    inputs: Array,
    threads: int = 1,
    timeout_s: float | None = None,
    within: child.Child | None = None,
    raw: bool = False,
) -> Array:
    """All outputs (N, ...) for `inputs` (N, H, W, C) float32, computed in the child one image at a time.

    Args:
        timeout_s: seconds after which the child is killed, for each chunk of inputs; None waits for ever.
        within: the child process to run in; the shared one by default.
        raw: inputs and outputs are in the file's own types, not in float32.

    Raises:
        ModelError: the file is missing or damaged.
        DataError: `inputs` do not fit the file.
        RuntimeFailure: LiteRT refused the file, crashed, or a chunk took longer than `timeout_s`.
    """
    path = Path(path)
    model = file.read(path)
    if inputs.ndim != 4 or inputs.shape[1:] != model.inputs[0].shape[1:]:
        raise DataError(f"{path} needs inputs of shape (N, *{model.inputs[0].shape[1:]}), not {inputs.shape}")
    per_image = 4 * max(inputs[0].size if len(inputs) else 1, int(np.prod(model.outputs[0].shape)))
    step = max(1, _CHUNK_BYTES // per_image)
    process = within or child.shared()
    target = f"slimseg.runtimes.litert.session:{'run_raw' if raw else 'run'}"
    parts = [
        process.call(target, str(path), inputs[i : i + step], threads, timeout_s=timeout_s, about=path)
        for i in range(0, len(inputs), step)
    ]
    return np.concatenate(parts) if parts else np.zeros((0, *model.outputs[0].shape[1:]), np.float32)


_loaded: Kept[Session] = Kept(_KEPT)


def loaded(path: str, threads: int) -> Session:
    """A session of a file, kept from an earlier call if the file has not changed since. Runs in the child."""
    stat = file.stat(Path(path))
    key = (path, stat.st_mtime_ns, stat.st_size, threads)
    return _loaded.get(key, lambda: Session(path, threads))


def run(path: str, inputs: Array, threads: int = 1) -> Array:
    """Outputs of `Session.run` for each of `inputs` (N, H, W, C), concatenated. Runs in the child."""
    session = loaded(path, threads)
    return np.concatenate([session.run(image) for image in inputs])


def run_raw(path: str, inputs: Array, threads: int = 1) -> Array:
    """Outputs of `Session.run_raw` for each of `inputs` (N, H, W, C), concatenated. Runs in the child."""
    session = loaded(path, threads)
    return np.concatenate([session.run_raw(np.ascontiguousarray(image[None])) for image in inputs])


def run_alone(path: Path, value: Array, timeout_s: float | None = None) -> Array:
    """The output for one input of any shape, in the file's own types. Computed in the child.

    Raises:
        RuntimeFailure: as `predict`.
    """
    result: Array = child.call(f"{__name__}:_run_once", str(path), value, timeout_s=timeout_s, about=path)
    return result


def _run_once(path: str, value: Array) -> Array:
    return Session(path).run_raw(value)
