"""The profile of a file whose layers were timed in runs of their own, beside runs of the whole without a profiler."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from slimseg import ratios
from slimseg.results import LayerProfile, NodeType, Profile
from slimseg.runtimes.benchmark import Timing
from slimseg.runtimes.calm import Seen
from slimseg.runtimes.run_statistics import statistics

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class LayerTimes:
    """What the child measures of one file."""

    layers_us: Array  # (runs, layers), of the undisturbed runs in which layers were timed
    plain_ms: tuple[float, ...]  # milliseconds of the undisturbed whole runs
    seen: Seen
    load_ms: float
    prepare_ms: float
    first_run_ms: float
    peak_memory_bytes: int


Measured = TypeVar("Measured", bound=LayerTimes)


def profiled(
    path: Path,
    runtime: str,
    threads: int,
    measured: Measured,
    layers_of: Callable[[Measured, float], Sequence[LayerProfile]],
    size_bytes: int,
    input_shape: tuple[int, ...],
) -> Profile:
    """The profile. If the layers' sum is larger than the latency, their times are scaled down to it.

    Args:
        layers_of: makes the layers' profiles from the scaled measurement and the latency in milliseconds.
        input_shape: (1, height, width, channels).
    """
    timing = Timing.of(str(path), measured.plain_ms)
    apart_us = measured.layers_us.sum(axis=1)
    pace = min(1.0, ratios.share(1e3 * timing.median_ms, float(apart_us.mean())) or 1.0)
    layers = _cumulated(layers_of(replace(measured, layers_us=pace * measured.layers_us), timing.median_ms), timing)
    return Profile(
        model=str(path),
        runtime=runtime,
        threads=threads,
        runs=len(measured.layers_us),
        latency_ms=timing.median_ms,
        latency_p10_ms=timing.p10_ms,
        latency_p90_ms=timing.p90_ms,
        size_bytes=size_bytes,
        macs=sum(layer.macs for layer in layers),
        params=sum(layer.params for layer in layers),
        layers=layers,
        input_shapes=(input_shape,),
        statistics=statistics(pace * apart_us),
        load_ms=measured.load_ms,
        prepare_ms=measured.prepare_ms,
        first_run_ms=measured.first_run_ms,
        peak_memory_bytes=measured.peak_memory_bytes,
        node_types=_node_types(layers),
        disturbed=measured.seen.disturbance(),
    )


def _cumulated(layers: Sequence[LayerProfile], timing: Timing) -> tuple[LayerProfile, ...]:
    sums = ratios.cumulated([layer.latency_ms for layer in layers], timing.median_ms)
    return tuple(replace(layer, cumulative=each) for layer, each in zip(layers, sums, strict=True))


def _node_types(layers: Sequence[LayerProfile]) -> tuple[NodeType, ...]:
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
        delegate = own[0].delegate  # one runtime has one
        made.append(NodeType(kernel, delegate, len(own), total_ms / len(own), total_ms, share, cumulative, calls))
    return tuple(made)
