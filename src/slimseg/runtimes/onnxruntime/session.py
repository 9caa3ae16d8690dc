"""Run an `.onnx` file in onnxruntime's CPU provider, in this process or in the child process.

`Session` loads native code into this process; `predict` does the same in the child, where a crash does no harm.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from slimseg.errors import DataError, ModelError
from slimseg.onnx_format import parsing
from slimseg.runtimes import child
from slimseg.runtimes.kept import Kept
from slimseg.runtimes.onnxruntime import file
from slimseg.runtimes.onnxruntime.package import require

Array = np.ndarray[Any, Any]
_CHUNK_BYTES = 64 << 20  # most bytes of inputs or outputs per message to the child
_KEPT = 8  # sessions that the child keeps loaded
_QUIET = 4  # severity: fatal errors only; the others are raised
_TO_NHWC, _TO_NCHW = (0, 2, 3, 1), (0, 3, 1, 2)
# Processors with AVX2 and without VNNI add pairs of 8-bit products in 16 bits, which overflows; this does not.
_EXACT_SUMS = ("session.x64quantprecision", "1")


class Session:
    """One loaded file. Images and maps are channels last here, whatever their order in the file.

    Args:
        data: the model, if it is not the file itself.
        trace: where onnxruntime writes its profile; empty: no profile.

    Raises:
        ModelError: the file is missing or damaged.
        RuntimeFailure: onnxruntime is not installed.
        Exception: onnxruntime refuses the file.
    """

    def __init__(self, path: str | Path, threads: int = 1, data: bytes | None = None, trace: str = "") -> None:
        runtime = require()
        self.file = file.read(path)
        options = runtime.SessionOptions()
        options.log_severity_level, options.intra_op_num_threads, options.inter_op_num_threads = _QUIET, threads, 1
        options.add_session_config_entry(*_EXACT_SUMS)
        if trace:
            options.enable_profiling, options.profile_file_prefix = True, trace
        start = time.perf_counter()
        content = Path(path).read_bytes() if data is None else data
        loaded = time.perf_counter()
        self._session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        self.load_ms = 1e3 * (loaded - start)
        self.prepare_ms = 1e3 * (time.perf_counter() - loaded)
        self._names = [each.name for each in self._session.get_outputs()]
        self._feed: dict[str, Array] = {}

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the input in NHWC."""
        return self.file.inputs[0].shape

    def set_raw(self, value: Array) -> None:
        """Set the input, (1, H, W, C) or (H, W, C).

        Raises:
            DataError: its shape is not the file's.
        """
        info = self.file.inputs[0]
        value = value[None] if value.ndim == 3 else value
        if not fits(value.shape, info.shape):
            raise DataError(f"{self.file.path} needs an input of shape {info.shape}, not {value.shape}")
        planes = value if self.file.is_nhwc else value.transpose(_TO_NCHW)
        self._feed = {info.name: np.ascontiguousarray(planes, np.dtype(info.dtype))}

    def set_random(self) -> None:
        """Set random inputs: timing must not depend on an image.

        Raises:
            ModelError: the file does not state the size of its input.
        """
        info, generator = self.file.inputs[0], np.random.default_rng(0)
        if len(info.shape) != 4 or not all(info.shape):
            raise ModelError(f"{self.file.path} does not state the size of its input: export it with a fixed size")
        if np.dtype(info.dtype).kind in "iu":
            self.set_raw(generator.integers(0, 127, info.shape))
        else:
            self.set_raw(generator.standard_normal(info.shape, np.float32))

    def invoke(self) -> Any:
        """Run the network on the input that is set, and return the first output as the file stores it."""
        return self._session.run(self._names[:1], self._feed)[0]

    def run_raw(self, value: Array) -> Array:
        """Run on one input; maps of the output are channels last."""
        self.set_raw(value)
        return self._channels_last(self.invoke())

    def values(self, value: Array, names: Sequence[str]) -> list[Array]:
        """Some outputs for one input, maps channels last."""
        self.set_raw(value)
        return [self._channels_last(each) for each in self._session.run(list(names), self._feed)]

    def end_profile(self) -> Path:
        """The profile of all runs so far, which ends with this."""
        return Path(self._session.end_profiling())

    def _channels_last(self, value: Array) -> Array:
        return value.transpose(_TO_NHWC) if value.ndim == 4 and not self.file.is_nhwc else value


def fits(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Whether a shape is the one that the file states; 0 there stands for any length."""
    return len(shape) == len(wanted) and all(
        own == other or not other for own, other in zip(shape, wanted, strict=True)
    )


def predict(path: str | Path, inputs: Array, threads: int = 1, timeout_s: float | None = None) -> Array:
    """All outputs (N, ...) for `inputs` (N, H, W, C), computed in the child one image at a time.

    Raises:
        ModelError: the file is missing or damaged.
        DataError: `inputs` do not fit the file.
        RuntimeFailure: onnxruntime is not installed, refused the file, crashed, or took longer than `timeout_s`.
    """
    path = Path(path)
    shape = file.read(path).inputs[0].shape
    if inputs.ndim != 4 or not len(inputs) or not fits((1, *inputs.shape[1:]), shape):
        raise DataError(f"{path} needs one or more inputs of shape (N, *{shape[1:]}), not {inputs.shape}")
    step = max(1, _CHUNK_BYTES // (4 * max(1, inputs[0].size)))
    call: Callable[..., Any] = child.shared().call
    target = "slimseg.runtimes.onnxruntime.session:run"
    parts = [
        call(target, str(path), inputs[i : i + step], threads, timeout_s=timeout_s, about=path)
        for i in range(0, len(inputs), step)
    ]
    return np.concatenate(parts)


def values(path: str | Path, image: Array, names: Sequence[str]) -> dict[str, Array]:
    """Values of the file for one input (H, W, C), maps channels last, to find the layer where two files depart.

    Raises:
        ModelError: the file is missing or damaged, or has no value of a given name.
        RuntimeFailure: as for `predict`.
    """
    path = Path(path)
    known = {each.result for each in file.read(path).operators}
    missing = [name for name in names if name not in known]
    if missing:
        raise ModelError(f"{path} has no value {missing[0]!r}: give the name of an operator's result")
    found = child.call("slimseg.runtimes.onnxruntime.session:run_values", str(path), image, list(names), about=path)
    return dict(zip(names, found, strict=True))


_loaded: Kept[Session] = Kept(_KEPT)


def run(path: str, inputs: Array, threads: int = 1) -> Array:
    """Outputs of `Session.run_raw` for each of `inputs` (N, H, W, C), concatenated. Runs in the child."""
    session = _kept(path, threads)
    return np.concatenate([session.run_raw(image) for image in inputs])


def _kept(path: str, threads: int) -> Session:
    """A session of a file, kept from an earlier call if the file has not changed since."""
    stat = Path(path).stat()
    key = (path, stat.st_mtime_ns, stat.st_size, threads)
    return _loaded.get(key, lambda: Session(path, threads))


def run_values(path: str, image: Array, names: list[str]) -> list[Array]:
    """Values of one run: they are added to the file's outputs. Runs in the child."""
    model = parsing.parse(Path(path))
    outputs = {each.name for each in model.graph.output}
    added = [name for name in dict.fromkeys(names) if name not in outputs]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in added)
    return Session(path, data=model.SerializeToString()).values(image, names)
