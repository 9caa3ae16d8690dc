"""LiteRT's own per-operator profiler, through the C API that the wheel's `libLiteRt.so` exports.

The public Python API cannot switch the profiler on, so this mirrors the C structs of the pinned ai-edge-litert
(`litert/c/litert_profiler_event.h`, `litert_layout.h`). Loads native code into this process: run it in the child.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from slimseg.runtimes.litert import file
from slimseg.runtimes.litert.session import random_input

Handle = ctypes.c_void_p
Array = np.ndarray[Any, Any]

# Types of profiler events.
TOTAL = 1  # tag "Invoke": the whole run
BUILTIN = 2  # one operator on a built-in kernel; its index is the operator's in the file
DELEGATED = 8  # one XNNPACK operator; its index counts within its part of the graph

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


@dataclass(frozen=True)
class Kernel:
    """One thing the runtime ran and timed."""

    tag: str  # e.g. "Convolution (NHWC, F32) IGEMM"
    type: int  # BUILTIN or DELEGATED
    index: int


@dataclass(frozen=True)
class Trace:
    """Every kernel of a run in order of execution, with its time in each of several runs."""

    kernels: tuple[Kernel, ...]
    elapsed_us: Array  # (runs, kernels)
    total_us: Array  # (runs,)

    @classmethod
    def of(cls, runs: list[list[tuple[str, int, int, int]]]) -> Trace:
        """From (tag, type, index, elapsed_us) of every event of every run."""
        own = [[each for each in run if each[1] in (BUILTIN, DELEGATED)] for run in runs]
        totals = [sum(each[3] for each in run if each[0] == "Invoke" and each[1] == TOTAL) for run in runs]
        kernels = tuple(Kernel(*each[:3]) for each in own[0])
        if any(tuple(Kernel(*each[:3]) for each in run) != kernels for run in own):
            raise RuntimeError("the profiler reported different kernels in different runs")
        elapsed = np.array([[each[3] for each in run] for run in own], np.float64).reshape(len(runs), len(kernels))
        return cls(kernels, elapsed, np.array(totals, np.float64))


class Recorder:
    """A compiled model with its profiler running; `events` is one run of it."""

    def __init__(self, path: Path, threads: int = 1) -> None:
        self._library = _library()
        self._keep: list[Any] = []  # buffers that native code points into
        self._exit = ExitStack()
        self._environment = self._create("Environment", 0, None)
        self._model = self._create("ModelFromFile", self._environment, str(path).encode(), destroy="Model")
        options = self._create("Options")
        self._call("SetOptionsHardwareAccelerators", options, _CPU)
        self._add(options, "runtime_options_string", "enable_profiling = true\n")
        self._add(options, "xnnpack", f"num_threads = {threads}\n")
        self._compiled = self._create("CompiledModel", self._environment, self._model, options)
        self._profiler = self._get("CompiledModelGetProfiler", self._compiled)
        info = file.read(path)
        self._inputs = self._buffers("Input", len(info.inputs))
        self._outputs = self._buffers("Output", len(info.outputs))
        for buffer, tensor in zip(self._inputs, info.inputs, strict=True):
            self._fill(Handle(buffer), random_input(tensor))  # ctypes arrays yield plain, 32-bit integers

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._exit.close()

    def run(self) -> None:
        inputs, outputs = self._inputs, self._outputs
        first = ctypes.c_size_t(0)
        counts = ctypes.c_size_t(len(inputs)), ctypes.c_size_t(len(outputs))
        self._call("RunCompiledModel", self._compiled, first, counts[0], inputs, counts[1], outputs)

    def events(self) -> Iterator[tuple[str, int, int, int]]:
        """Run once: (tag, type, index, elapsed_us) of every event."""
        self._call("ResetProfiler", self._profiler)
        self._call("StartProfiler", self._profiler)  # a reset stops it
        self.run()
        self._call("StopProfiler", self._profiler)
        count = ctypes.c_int()
        self._call("GetNumProfilerEvents", self._profiler, ctypes.byref(count))
        events = (_Event * count.value)()
        self._call("GetProfilerEvents", self._profiler, count, events)
        return ((event.tag.decode(), event.type, event.index, event.elapsed_us) for event in events)

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
        """Options that the C API takes as text; they then belong to `options`."""
        text = ctypes.create_string_buffer(toml.encode())
        self._keep.append(text)
        opaque = self._get("CreateOpaqueOptions", identifier.encode(), ctypes.cast(text, Handle), _leave_alone)
        self._call("AddOpaqueOptions", options, opaque)

    def _buffers(self, kind: str, count: int) -> Any:
        signature = self._get("GetModelSignature", self._model, ctypes.c_size_t(0))
        return (Handle * count)(*(self._buffer(kind, signature, index) for index in range(count)))

    def _buffer(self, kind: str, signature: Handle, index: int) -> Handle:
        tensor = self._get(f"GetSignature{kind}TensorByIndex", signature, ctypes.c_size_t(index))
        tensor_type = _TensorType()
        self._call("GetRankedTensorType", tensor, ctypes.byref(tensor_type))
        first, position = ctypes.c_size_t(0), ctypes.c_size_t(index)
        needs = self._get(f"GetCompiledModel{kind}BufferRequirements", self._compiled, first, position)
        creator = "ManagedTensorBufferFromRequirements"
        return self._create(creator, self._environment, ctypes.byref(tensor_type), needs, destroy="TensorBuffer")

    def _fill(self, buffer: Handle, value: Array) -> None:
        """Uninitialised memory may hold denormals, which are slow."""
        address = Handle()
        self._call("LockTensorBuffer", buffer, ctypes.byref(address), _WRITE_LOCK)
        ctypes.memmove(address, np.ascontiguousarray(value).ctypes.data, value.nbytes)
        self._call("UnlockTensorBuffer", buffer)


# The destructor of options whose text Python owns.
_leave_alone = ctypes.CFUNCTYPE(None, Handle)(lambda _text: None)


def _library() -> ctypes.CDLL:
    import ai_edge_litert

    return ctypes.CDLL(os.path.join(os.path.dirname(ai_edge_litert.__file__), "libLiteRt.so"))
