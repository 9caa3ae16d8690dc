"""Profiles an `.onnx` file with onnxruntime's own profiler, whose kernels are joined to the file's operators."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from slimseg.disk import scratch
from slimseg.results import LayerProfile, Profile
from slimseg.runtimes import calm, child
from slimseg.runtimes.benchmark import warm_up
from slimseg.runtimes.layer_times import LayerTimes, profiled
from slimseg.runtimes.onnxruntime import costs, file, kernels
from slimseg.runtimes.onnxruntime.kernels import Kernel
from slimseg.runtimes.onnxruntime.session import Array, Session
from slimseg.runtimes.peak_memory import PeakMemory
from slimseg.runtimes.run_statistics import statistics
from slimseg.runtimes.turns import Turns

RUNTIME, PROVIDER = "onnxruntime", "CPU"
_MIN_S, _MAX_S = 0.2, 60.0  # least and most total time of the runs: small files run more often, slow ones less
_FEWEST, _MAX_RUNS = 3, 1000
_MOST_EVENTS = 500_000  # onnxruntime keeps a million
_TIMEOUT_S = 600.0


@dataclass(frozen=True)
class Measurement(LayerTimes):
    """What the child returns; the layers are onnxruntime's kernels."""

    kernels: tuple[Kernel, ...]


def profile(
    path: str | Path,
    threads: int = 1,
    runs: int = 50,
    timeout_s: float | None = _TIMEOUT_S,
    within: child.Child | None = None,
) -> Profile:
    """Latency of an `.onnx` file and of each of its kernels, named after the operator that most of its work is for.

    Runs with the profiler alternate with runs without it; disturbed ones are repeated and do not count. `latency_ms` is
    the median without the profiler. Kernels' times are means, scaled down if their sum is larger than the latency.

    Args:
        runs: number of runs with the profiler; more for small files, fewer for slow ones.
        timeout_s: seconds after which the child is killed; None waits for ever.
        within: the child to run in; by default a fresh one, so that memory and first run are those of this file alone.

    Raises:
        ModelError: the file is missing or damaged, or does not state the size of its input.
        RuntimeFailure: onnxruntime is not installed, refused the file, crashed or took longer than `timeout_s`.
    """
    path = Path(path)
    described = file.read(path)
    target = "slimseg.runtimes.onnxruntime.profiler:measure"
    with nullcontext(within) if within is not None else child.Child() as process:
        measured: Measurement = process.call(target, str(path), threads, runs, timeout_s=timeout_s, about=path)
    layers_of = partial(_layers, described)
    return profiled(path, RUNTIME, threads, measured, layers_of, described.size_bytes, described.inputs[0].shape)


def _layers(described: file.File, measured: Measurement, whole_ms: float) -> list[LayerProfile]:
    joined = kernels.parts(described.operators, measured.kernels)
    shapes = {**described.shapes, described.inputs[0].name: _planes(described)}
    return [
        _layer(kernel, own, shapes, measured.layers_us[:, number], whole_ms)
        for number, (kernel, own) in enumerate(zip(measured.kernels, joined, strict=True))
    ]


def _planes(described: file.File) -> tuple[int, ...]:
    shape = described.inputs[0].shape
    return shape if described.is_nhwc or len(shape) != 4 else (shape[0], shape[3], *shape[1:3])


def _layer(
    kernel: Kernel, own: Sequence[file.Operator], shapes: dict[str, tuple[int, ...]], runs_us: Array, whole_ms: float
) -> LayerProfile:
    """One kernel's profile: it has the name of the operator with the most multiply-accumulates, or of its last one."""
    prices = [
        costs.cost(each, [shapes.get(name, ()) for name in each.inputs], shapes.get(each.result, kernel.output))
        for each in own
    ]
    worker = max(range(len(own)), key=lambda place: (prices[place].macs, place), default=None)
    spread = statistics(runs_us)
    moved = 4 * (sum(int(np.prod(shape)) for shape in (*kernel.inputs, kernel.output)))
    return LayerProfile(
        name=kernel.name if worker is None else own[worker].name,
        op=kernel.op if worker is None else own[worker].op,
        kernel=kernel.op,
        latency_ms=spread.average_ms,
        whole_ms=whole_ms,
        macs=sum(price.macs for price in prices),
        params=sum(price.params for price in prices),
        memory_bytes=moved,
        output_shape=_channels_last(kernel.output),
        delegate=PROVIDER,
        statistics=spread,
        covers=tuple(dict.fromkeys(name for each in own for name in each.covers)),
    )


def _channels_last(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (shape[0], *shape[2:], shape[1]) if len(shape) == 4 else shape


def measure(name: str, threads: int, runs: int) -> Measurement:
    """The part of `profile` that runs in the child."""
    memory = PeakMemory()
    plain = Session(name, threads)
    plain.set_random()
    (_, first_run_ms, _), peak = calm.timed(plain.invoke, threads), memory.bytes()
    with scratch.folder() as folder:
        profiled = Session(name, threads, trace=str(folder / "runs"))
        profiled.set_random()
        single_s = warm_up(plain)
        runs = min(max(runs, min(_MAX_RUNS, int(_MIN_S / single_s))), max(_FEWEST, int(_MAX_S / single_s)))
        runs = max(_FEWEST, min(runs, _MOST_EVENTS // (3 * len(profiled.file.operators))))
        numbers = count()

        def run() -> int:
            profiled.invoke()
            return next(numbers)

        turns = Turns(run, plain, max(1, round(1e-3 / single_s)), threads)
        turns.take(runs)
        found, times = read_trace(profiled.end_profile())
    kernels_us = times[turns.told]
    counting, _ = calm.undisturbed_rows(kernels_us, np.zeros(len(kernels_us)), 1e3 * turns.taken_ms, runs)
    return Measurement(
        counting, turns.plain_ms(), turns.seen, plain.load_ms, plain.prepare_ms, first_run_ms, peak, found
    )


def read_trace(path: Path) -> tuple[tuple[Kernel, ...], Array]:
    """The kernels of a run, in order, and their times in microseconds (runs, kernels), from onnxruntime's trace.

    A run's events end with one called `model_run`.
    """
    rows: list[list[float]] = []
    own: list[Any] = []
    first: list[Any] = []
    for event in json.loads(path.read_text()):
        if event["cat"] == "Node" and event["name"].endswith("_kernel_time"):
            own.append(event)
        elif event["name"] == "model_run":
            first = first or own
            rows.append([float(each["dur"]) for each in own])
            own = []
    return tuple(map(_kernel, first)), np.asarray(rows, np.float64)


def _kernel(event: Any) -> Kernel:
    told = event["args"]
    inputs, outputs = (_shapes(told.get(f"{side}_type_shape", ())) for side in ("input", "output"))
    return Kernel(kernels.of_event(event["name"]), told["op_name"], inputs, outputs[0] if outputs else ())


def _shapes(told: Any) -> tuple[tuple[int, ...], ...]:
    """Shapes from entries such as {"float": [1, 8, 32, 48]}."""
    return tuple(tuple(map(int, shape)) for entry in told for shape in entry.values())
