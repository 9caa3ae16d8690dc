"""LiteRT's own per-operator profiler, through the C API that the wheel's `libLiteRt.so` exports.

The public Python API cannot switch the profiler on, so this file mirrors the C structs of the pinned ai-edge-litert
(`litert/c/litert_profiler_event.h`, `litert_layout.h`). It loads native code into this process: use it in the child.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import numpy as np

from slimseg.runtimes.litert.profiling.trace import Event
from slimseg.runtimes.litert.session import random_input
from slimseg.runtimes.peak_memory import PeakMemory
from slimseg.tensors import TensorInfo
from slimseg.tflite import file

Handle = ctypes.c_void_p
Array = np.ndarray[Any, Any]
T = TypeVar("T")

_CPU = 1
_WRITE_LOCK = 1


class _Layout(ctypes.Structure):
    _fields_ = [
        ("rank", ctypes.c_uint, 7),
        ("has_strides", ctypes.c_uint, 1),
        ("dimensions", ctypes.c_int32 * 8),
        ("strides", ctypes.c_uint32 * 8),
    ]


class _TensorType(ctypes.Structure):
    _fields_ = [("element_type", ctypes.c_int32), ("layout", _Layout)]


class _Memory(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in ("max_rss", "allocated", "in_use")]


class _Event(ctypes.Structure):
    _fields_ = [
        ("tag", ctypes.c_char_p),
        ("type", ctypes.c_int32),
        ("start_us", ctypes.c_uint64),
        ("elapsed_us", ctypes.c_uint64),
        ("memory_before", _Memory),
        ("memory_after", _Memory),
        ("index", ctypes.c_uint64),
        ("subgraph", ctypes.c_uint64),
        ("source", ctypes.c_int32),
    ]


class Recorder:
    """A compiled model with its profiler; `events` makes one run of it.

    `load_ms` is the time to read the file, `prepare_ms` the time in which the delegate takes over the graph and packs
    its weights. The profiler's own buffer takes 30 ms and 70 MB, so use `profiled=False` to measure what an app sees.

    Raises:
        RuntimeError: LiteRT refused a call.
    """

    def __init__(self, path: Path, threads: int = 1, profiled: bool = True) -> None:
        self._library = _library()
        self._keep: list[Any] = []  # buffers that native code points into
        self._exit = ExitStack()
        info = file.read(path)
        self._environment = self._create("Environment", 0, None)
        self._memory = PeakMemory()
        name = str(path).encode()
        self._model, self.load_ms = _timed(
            lambda: self._create("ModelFromFile", self._environment, name, destroy="Model")
        )
        options = self._create("Options")
        self._call("SetOptionsHardwareAccelerators", options, _CPU)
        if profiled:
            self._add(options, "runtime_options_string", "enable_profiling = true\n")
        self._add(options, "xnnpack", f"num_threads = {threads}\n")
        self._compiled, self.prepare_ms = _timed(
            lambda: self._create("CompiledModel", self._environment, self._model, options)
        )
        self._profiler = self._get("CompiledModelGetProfiler", self._compiled) if profiled else Handle()
        self._which = ctypes.c_size_t(file.main_signature(path))
        self._signature = self._get("GetModelSignature", self._model, self._which)
        self._inputs = self._buffers("Input")
        self._outputs = self._buffers("Output")
        by_name = {tensor.name: tensor for tensor in info.inputs}
        for index, buffer in enumerate(self._inputs):
            self._fill(Handle(buffer), by_name.get(self._tensor_name("Input", index), info.inputs[index]))

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._exit.close()

    def run(self) -> float:
        """Run once and return the time in milliseconds."""
        inputs, outputs = self._inputs, self._outputs
        counts = ctypes.c_size_t(len(inputs)), ctypes.c_size_t(len(outputs))
        start = time.perf_counter()
        self._call("RunCompiledModel", self._compiled, self._which, counts[0], inputs, counts[1], outputs)
        return (time.perf_counter() - start) * 1e3

    def peak_memory_bytes(self) -> int:
        """Peak resident memory so far, without the runtime's own code and environment; 0 if unknown."""
        return self._memory.bytes()

    def events(self) -> list[Event]:
        """Run once with the profiler and return its events."""
        return self.record(1)[0]

    def record(self, runs: int) -> tuple[list[Event], str]:
        """Run `runs` times with the profiler: all events, and LiteRT's own summary of them as text."""
        self._call("ResetProfiler", self._profiler)
        self._call("StartProfiler", self._profiler)  # a reset stops it
        for _ in range(runs):
            self.run()
        self._call("StopProfiler", self._profiler)
        return self._events(), self._summary() if runs > 1 else ""

    def _events(self) -> list[Event]:
        count = ctypes.c_int()
        self._call("GetNumProfilerEvents", self._profiler, ctypes.byref(count))
        events = (_Event * count.value)()
        self._call("GetProfilerEvents", self._profiler, count, events)
        return [
            Event(e.tag.decode(errors="replace"), e.type, e.index, e.elapsed_us, e.start_us, e.subgraph) for e in events
        ]

    def _summary(self) -> str:
        text = ctypes.c_char_p()
        self._call("GetProfileSummary", self._profiler, self._compiled, ctypes.byref(text))
        return (text.value or b"").decode(errors="replace")

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self._library, f"LiteRt{name}")(*arguments)
        if status != 0:
            raise RuntimeError(f"LiteRt{name} failed with status {status}")

    def _get(self, name: str, *arguments: Any) -> Handle:
        handle = Handle()
        self._call(name, *arguments, ctypes.byref(handle))
        return handle

    def _create(self, kind: str, *arguments: Any, destroy: str | None = None) -> Handle:
        handle = self._get(f"Create{kind}", *arguments)
        self._exit.callback(getattr(self._library, f"LiteRtDestroy{destroy or kind}"), handle)
        return handle

    def _add(self, options: Handle, identifier: str, toml: str) -> None:
        """Add options in the form of text (TOML) to `options`."""
        text = ctypes.create_string_buffer(toml.encode())
        self._keep.append(text)
        opaque = self._get("CreateOpaqueOptions", identifier.encode(), ctypes.cast(text, Handle), _leave_alone)
        self._call("AddOpaqueOptions", options, opaque)

    def _buffers(self, kind: str) -> Any:
        count = ctypes.c_size_t()
        self._call(f"GetNumSignature{kind}s", self._signature, ctypes.byref(count))
        return (Handle * count.value)(*(self._buffer(kind, index) for index in range(count.value)))

    def _buffer(self, kind: str, index: int) -> Handle:
        tensor_type = _TensorType()
        self._call("GetRankedTensorType", self._tensor(kind, index), ctypes.byref(tensor_type))
        needs = self._get(
            f"GetCompiledModel{kind}BufferRequirements", self._compiled, self._which, ctypes.c_size_t(index)
        )
        creator = "ManagedTensorBufferFromRequirements"
        return self._create(creator, self._environment, ctypes.byref(tensor_type), needs, destroy="TensorBuffer")

    def _tensor(self, kind: str, index: int) -> Handle:
        return self._get(f"GetSignature{kind}TensorByIndex", self._signature, ctypes.c_size_t(index))

    def _tensor_name(self, kind: str, index: int) -> str:
        name = ctypes.c_char_p()
        self._call("GetTensorName", self._tensor(kind, index), ctypes.byref(name))
        return (name.value or b"").decode(errors="replace")

    def _fill(self, buffer: Handle, tensor: TensorInfo) -> None:
        """Write random values to an input buffer: uninitialised memory may hold denormals, which are slow."""
        value, size = np.ascontiguousarray(random_input(tensor)), ctypes.c_size_t()
        self._call("GetTensorBufferSize", buffer, ctypes.byref(size))
        if value.nbytes > size.value:
            raise RuntimeError(f"input {tensor.name} takes {size.value} bytes and not {value.nbytes}")
        address = Handle()
        self._call("LockTensorBuffer", buffer, ctypes.byref(address), _WRITE_LOCK)
        ctypes.memmove(address, value.ctypes.data, value.nbytes)
        self._call("UnlockTensorBuffer", buffer)


def _timed(call: Callable[[], T]) -> tuple[T, float]:
    """The result of `call`, and the milliseconds that it took."""
    start = time.perf_counter()
    result = call()
    return result, (time.perf_counter() - start) * 1e3


# A destructor that does nothing, for options whose text Python owns.
_leave_alone = ctypes.CFUNCTYPE(None, Handle)(lambda _text: None)


def _library() -> ctypes.CDLL:
    import ai_edge_litert

    return ctypes.CDLL(os.path.join(os.path.dirname(ai_edge_litert.__file__), "libLiteRt.so"))


def record(name: str, runs: int) -> tuple[list[Event], str]:
    """All events of `runs` runs of a file, and LiteRT's own summary of them. Runs in the child."""
    with Recorder(Path(name)) as recorder:
        recorder.run()
        return recorder.record(runs)
