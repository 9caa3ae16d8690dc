"""Where the time of a `.tflite` goes: what the official profiler saw, by operator, beside the plain latency."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from slimseg.results import LayerProfile, Profile
from slimseg.runtimes import child
from slimseg.runtimes.litert import file
from slimseg.runtimes.litert.attribution import attribute
from slimseg.runtimes.litert.benchmark import Timing, prepared, sample_ms, warm_up
from slimseg.runtimes.litert.events import Recorder, Trace

_BLOCK = 5  # runs with the profiler, then as many without, so that both see the same machine
_MIN_S = 0.2  # small files run more often: events are whole microseconds
_MAX_RUNS = 2000
_TRUNCATED_US = 0.5  # elapsed times are cut to whole microseconds: half of one is lost on average


@dataclass(frozen=True)
class Measurement:
    trace: Trace
    plain_ms: tuple[float, ...]


def profile(
    path: str | Path,
    threads: int = 1,
    runs: int = 50,
    timeout_s: float | None = None,
    within: child.Child | None = None,
) -> Profile:
    """Latency of a file and of each of its operators.

    Each layer's latency is its mean over the half of the runs whose total lies closest to the median total, so that
    layers add up to a typical run. `latency_ms` comes from runs without the profiler, in turns with those.

    Raises:
        ModelError: the file is missing or damaged.
        RuntimeFailure: LiteRT refused it, crashed or took longer than `timeout_s`.
    """
    path = Path(path)
    described = file.read(path)
    target = "slimseg.runtimes.litert.profiler:measure"
    measured: Measurement = (within or child.shared()).call(
        target, str(path), threads, runs, timeout_s=timeout_s, about=path
    )
    timing = Timing.of(str(path), measured.plain_ms)
    kernel_ms, total_ms = typical_run(measured.trace)
    layers = _layers(described, measured.trace, kernel_ms, total_ms)
    return Profile(
        model=str(path),
        runtime="litert",
        threads=threads,
        runs=len(measured.trace.total_us),
        latency_ms=timing.median_ms,
        latency_p10_ms=timing.p10_ms,
        latency_p90_ms=timing.p90_ms,
        unattributed_ms=max(0.0, total_ms - math.fsum(layer.latency_ms for layer in layers)),
        size_bytes=described.size_bytes,
        macs=described.macs,
        params=described.params,
        layers=layers,
    )


def typical_run(trace: Trace) -> tuple[np.ndarray[Any, Any], float]:
    """Milliseconds of each kernel and of the whole, averaged over the middle half of the runs."""
    kernels_us = trace.elapsed_us + _TRUNCATED_US
    totals = trace.total_us
    middle = np.argsort(np.abs(totals - np.median(totals)), kind="stable")[: max(1, (len(totals) + 1) // 2)]
    return kernels_us[middle].mean(axis=0) / 1e3, float(totals[middle].mean()) / 1e3


def measure(name: str, threads: int, runs: int) -> Measurement:
    """What `profile` runs in the child."""
    session = prepared(name, threads)
    single_s = warm_up(session)
    runs = max(runs, min(_MAX_RUNS, int(_MIN_S / single_s)))
    repeats = max(1, round(1e-3 / single_s))
    events, plain = [], []
    with Recorder(Path(name), threads) as recorder:
        for _ in range(3):
            recorder.run()
        for start in range(0, runs, _BLOCK):
            count = min(_BLOCK, runs - start)
            recorder.run()  # untimed: the caches are the other's
            events += [list(recorder.events()) for _ in range(count)]
            session.invoke()
            plain += [sample_ms(session, repeats) for _ in range(count if repeats == 1 else 1)]
    return Measurement(Trace.of(events), tuple(plain))


def _layers(
    described: file.File, trace: Trace, kernel_ms: np.ndarray[Any, Any], total_ms: float
) -> tuple[LayerProfile, ...]:
    owners = attribute(described.operators, trace.kernels)
    spent = [0.0] * len(described.operators)
    names: list[list[str]] = [[] for _ in described.operators]
    for owner, kernel, milliseconds in zip(owners, trace.kernels, kernel_ms, strict=True):
        if owner is not None:
            spent[owner] += float(milliseconds)
            names[owner].append(kernel.tag)
    return tuple(
        LayerProfile(
            name=operator.name,
            op=operator.op,
            kernel=" + ".join(dict.fromkeys(names[operator.index])),
            latency_ms=spent[operator.index],
            share=spent[operator.index] / total_ms if total_ms else 0.0,
            macs=operator.macs,
            params=operator.params,
            memory_bytes=operator.memory_bytes,
            output_shape=operator.output_shape,
        )
        for operator in described.operators
    )
