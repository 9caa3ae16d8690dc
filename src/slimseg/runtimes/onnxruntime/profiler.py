"""Profiles an `.onnx` file with onnxruntime's own profiler, whose kernels are joined to the file's operators."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from slimseg import ratios
from slimseg.disk import scratch
from slimseg.results import LayerProfile, NodeType, Profile
from slimseg.runtimes import calm, child
from slimseg.runtimes.benchmark import Timing, warm_up
from slimseg.runtimes.calm import Seen
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
class Measurement:
    """What the child returns."""

    kernels: tuple[Kernel, ...]
    kernels_us: Array  # (runs, kernels), of the undisturbed runs with the profiler
    plain_ms: tuple[float, ...]  # milliseconds of the undisturbed runs without it
    seen: Seen
    load_ms: float
    prepare_ms: float
    first_run_ms: float
    peak_memory_bytes: int


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
    timing = Timing.of(str(path), measured.plain_ms)
    apart_us = measured.kernels_us.sum(axis=1)
    pace = min(1.0, ratios.share(1e3 * timing.median_ms, float(apart_us.mean())) or 1.0)
    measured = replace(measured, kernels_us=pace * measured.kernels_us)
    layers = _layers(described, measured, timing.median_ms)
    return Profile(
        model=str(path),
        runtime=RUNTIME,
        threads=threads,
        runs=len(measured.kernels_us),
        latency_ms=timing.median_ms,
        latency_p10_ms=timing.p10_ms,
        latency_p90_ms=timing.p90_ms,
        size_bytes=described.size_bytes,
        macs=sum(layer.macs for layer in layers),
        params=sum(layer.params for layer in layers),
        layers=layers,
        input_shapes=(described.inputs[0].shape,),
        statistics=statistics(pace * apart_us),
        load_ms=measured.load_ms,
        prepare_ms=measured.prepare_ms,
        first_run_ms=measured.first_run_ms,
        peak_memory_bytes=measured.peak_memory_bytes,
        node_types=_node_types(layers),
        disturbed=measured.seen.disturbance(),
    )


def _layers(described: file.File, measured: Measurement, whole_ms: float) -> tuple[LayerProfile, ...]:
    joined = kernels.parts(described.operators, measured.kernels)
    shapes = {**described.shapes, described.inputs[0].name: _planes(described)}
    made = [
        _layer(kernel, own, shapes, measured.kernels_us[:, number], whole_ms)
        for number, (kernel, own) in enumerate(zip(measured.kernels, joined, strict=True))
    ]
    sums = ratios.cumulated([layer.latency_ms for layer in made], whole_ms)
    return tuple(replace(layer, cumulative=each) for layer, each in zip(made, sums, strict=True))


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


def _node_types(layers: tuple[LayerProfile, ...]) -> tuple[NodeType, ...]:
    """Times by kind of kernel, largest first."""
    by_kernel: dict[str, list[LayerProfile]] = defaultdict(list)
    for layer in layers:
        by_kernel[layer.kernel].append(layer)
    whole_ms = sum(layer.latency_ms for layer in layers)
    totals = {kernel: sum(layer.latency_ms for layer in own) for kernel, own in by_kernel.items()}
    cumulative, made = 0.0, []
    for kernel, total_ms in sorted(totals.items(), key=lambda item: -item[1]):
        own, share = by_kernel[kernel], ratios.share(total_ms, whole_ms)
        cumulative += share
        calls = sum(layer.statistics.times_called for layer in own)
        made.append(NodeType(kernel, PROVIDER, len(own), total_ms / len(own), total_ms, share, cumulative, calls))
    return tuple(made)


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
        found, counting, turns.plain_ms(), turns.seen, plain.load_ms, plain.prepare_ms, first_run_ms, peak
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
