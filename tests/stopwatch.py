"""A stopwatch that gives the same times on every machine, however busy: for tests of what is decided from times.

Every file still runs once in its runtime, which refuses or crashes as ever. Its time is then added up from its
operators: multiply-accumulates, bytes and values at the pace of a kind of kernel, and a constant for each operator. The
paces are roughly those of one core of a server. What matters is that kernels differ and that times repeat.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any, Protocol

from slimseg.pace import at_latency
from slimseg.results import Profile
from slimseg.runtimes import benchmark, child, registry
from slimseg.runtimes.litert.profiling import profiler as litert_profiler
from slimseg.runtimes.litert.runtime import LiteRT
from slimseg.runtimes.ncnn import profiler as ncnn_profiler
from slimseg.runtimes.onnxruntime import profiler as onnx_profiler
from slimseg.tflite import file

ROUNDS = 9
OVERHEAD_MS = 0.002  # of every operator
NS_PER_MAC = {
    "DEPTHWISE_CONV_2D": 0.25,
    "TRANSPOSE_CONV": 0.5,
    "ConvolutionDepthWise": 0.25,
    "Deconvolution": 0.5,
    "ConvTranspose": 0.5,
}
NS_PER_MAC_OF_OTHERS = 0.04
NS_PER_BYTE = 0.1
NS_PER_VALUE = {"SOFTMAX": 8.0, "ARG_MAX": 5.0, "LOGISTIC": 3.0, "TANH": 3.0, "TRANSPOSE": 2.0, "PRELU": 1.5}
SHARE_IN_8_BITS = 0.35  # of a float kernel's time per multiply-accumulate
SHARE_IN_16_BITS = 30.0  # they have no kernels of their own

_time_files = benchmark.time_files
_profilers = {"litert": litert_profiler.profile, "ncnn": ncnn_profiler.profile, "onnxruntime": onnx_profiler.profile}
_known_ms: dict[str, float] = {}  # by the hash of a file's contents


class Operator(Protocol):
    """What a file or a profile says of an operator."""

    @property
    def op(self) -> str: ...
    @property
    def macs(self) -> int: ...
    @property
    def memory_bytes(self) -> int: ...
    @property
    def output_shape(self) -> tuple[int, ...]: ...


def time_files(paths: Sequence[str | Path], threads: int = 1, *_: Any, **how: Any) -> tuple[benchmark.Timing, ...]:
    """In place of `benchmark.time_files`."""
    options = how.get("options")
    each = options if isinstance(options, list | tuple) else [options] * len(paths)
    rounds = how.get("rounds") or ROUNDS
    times = [_latency_ms(Path(path), threads, own) for path, own in zip(paths, each, strict=True)]
    return tuple(benchmark.Timing.of(str(path), [ms] * rounds) for path, ms in zip(paths, times, strict=True))


def profiler_of(name: str) -> Callable[..., Profile]:
    """In place of a runtime's profiler: its kernels, each with this stopwatch's time."""

    def profile(path: str | Path, threads: int = 1, runs: int = 50, **how: Any) -> Profile:
        found = _profilers[name](path, threads, min(runs, 3), **how)
        dtypes = _dtypes(Path(path))
        times = [_operator_ms(each, dtypes.get(each.name, "")) if each.kernel else 0.0 for each in found.layers]
        total_ms = sum(times) or OVERHEAD_MS
        found = at_latency(found, total_ms)
        layers = tuple(replace(each, latency_ms=ms) for each, ms in zip(found.layers, times, strict=True))
        return replace(found, latency_p10_ms=total_ms, latency_p90_ms=total_ms, layers=layers, disturbed=None)

    return profile


def _latency_ms(path: Path, threads: int, options: Any) -> float:
    digest = hashlib.sha256(f"{options}".encode())
    for each in registry.of(path).files(path):
        digest.update(each.read_bytes() if each.is_file() else b"")
    key = digest.hexdigest()
    if key not in _known_ms:
        _time_files([path], threads, rounds=1, options=options)
        _known_ms[key] = sum(_operators_ms(path))
    return _known_ms[key]


def _operators_ms(path: Path) -> Iterable[float]:
    if isinstance(registry.of(path), LiteRT):
        return [_operator_ms(each, each.dtype) for each in file.operators(path)]
    layers = _profilers[registry.of(path).name](path, 1, 1, within=child.shared()).layers
    return [_operator_ms(each, "float32") for each in layers if each.op != "Split"]


def _dtypes(path: Path) -> dict[str, str]:
    return {each.name: each.dtype for each in file.operators(path)} if isinstance(registry.of(path), LiteRT) else {}


def _operator_ms(operator: Operator, dtype: str) -> float:
    pace = NS_PER_MAC.get(operator.op, NS_PER_MAC_OF_OTHERS)
    pace *= SHARE_IN_8_BITS if dtype in ("int8", "uint8") else SHARE_IN_16_BITS if dtype == "int16" else 1.0
    values = NS_PER_VALUE.get(operator.op, 0.0) * prod(operator.output_shape)
    return OVERHEAD_MS + (operator.macs * pace + operator.memory_bytes * NS_PER_BYTE + values) / 1e6
