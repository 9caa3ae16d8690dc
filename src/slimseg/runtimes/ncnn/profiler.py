"""Profiles an ncnn network layer by layer.

ncnn's wheel is built without its own timing. But an extractor computes only the layers that a blob needs, and keeps
every blob until its only reader has taken it. So extracting the layers' outputs in the file's order runs the same
layers as a whole run, one per call:

    extract(conv1)   conv1            t₁
    extract(relu1)   relu1            t₂          t₀, the time to extract a blob that is computed already, is the
    extract(conv2)   conv2            t₃          overhead of a call and is subtracted
    ...                               Σ(tᵢ − t₀) ≈ the whole run

Memory is handled as in a whole run: light mode stays on, since no blob is needed twice, so layers compute in place.
Blobs are extracted in their layout in memory (packed) and from the session's own pool; otherwise each would be copied.
"""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from slimseg.results import LayerProfile, Profile, Statistics
from slimseg.runtimes import calm, child
from slimseg.runtimes.benchmark import warm_up
from slimseg.runtimes.layer_times import LayerTimes, profiled
from slimseg.runtimes.ncnn import costs, file
from slimseg.runtimes.ncnn.session import DEFAULTS, Array, Options, Session
from slimseg.runtimes.peak_memory import PeakMemory
from slimseg.runtimes.run_statistics import statistics
from slimseg.runtimes.turns import Turns

RUNTIME = "ncnn"
_MIN_S, _MAX_S = 0.2, 60.0  # least and most total time of the runs: small files run more often, slow ones less
_FEWEST, _MAX_RUNS = 3, 2000
_AS_IT_LIES = 1  # `type` of extract: the blob is neither unpacked nor converted to float32
_ASKED_AGAIN = 5  # number of blobs with which the overhead of a call is measured
_TIMEOUT_S = 600.0


@dataclass(frozen=True)
class BlobShape:
    """A blob's shape, (c, h, w) or fewer sides, and its packing: how many channels are interleaved in memory."""

    shape: tuple[int, ...]
    pack: int


@dataclass(frozen=True)
class Measurement(LayerTimes):
    """What the child returns."""

    blobs: dict[str, BlobShape]


def profile(
    path: str | Path,
    threads: int = 1,
    runs: int = 50,
    timeout_s: float | None = _TIMEOUT_S,
    within: child.Child | None = None,
    options: Options = DEFAULTS,
) -> Profile:
    """Latency of a `.param` and of each of its layers, which slimseg names after the graph nodes that they compute.

    Runs that other work disturbed are repeated and do not count. Whole runs alternate with runs layer by layer.
    `latency_ms` is the median of the whole runs. A layer's latency is its mean over the runs layer by layer; if the
    layers' sum is larger than the latency, it is scaled down to it.

    Args:
        runs: number of runs layer by layer; more for small files, fewer for slow ones.
        timeout_s: seconds after which the child is killed; None waits for ever.
        within: the child to run in; by default a fresh one, so that memory and first run are those of this file alone.

    Raises:
        ModelError: a file is missing or damaged, or does not state the size of its input.
        RuntimeFailure: ncnn is not installed, refused the file, crashed or took longer than `timeout_s`.
    """
    path = Path(path)
    described = file.read(path)
    target = "slimseg.runtimes.ncnn.profiler:measure"
    with nullcontext(within) if within is not None else child.Child() as process:
        measured: Measurement = process.call(target, str(path), threads, runs, options, timeout_s=timeout_s, about=path)
    height, width, channels = _channels_last(measured.blobs[described.input_name].shape)[1:]
    layers_of, shape = partial(_layers, described), (1, height, width, channels)
    return profiled(path, RUNTIME, threads, measured, layers_of, described.size_bytes, shape)


def _layers(described: file.File, measured: Measurement, plain_ms: float) -> list[LayerProfile]:
    """Profiles of all layers, in the file's order, without the input."""
    return [
        _layer(line, measured, plain_ms, statistics(measured.layers_us[:, index]))
        for index, line in enumerate(_computed(described))
    ]


def _layer(line: file.LayerLine, measured: Measurement, whole_ms: float, spread: Statistics) -> LayerProfile:
    inputs, outputs = ([measured.blobs[blob].shape for blob in blobs] for blobs in (line.inputs, line.outputs))
    price = costs.cost(line, inputs, outputs)
    return LayerProfile(
        name=line.name,
        op=line.kind,
        kernel=f"{line.kind} pack{measured.blobs[line.outputs[0]].pack}",
        latency_ms=spread.average_ms,
        whole_ms=whole_ms,
        macs=price.macs,
        params=price.params,
        memory_bytes=price.memory_bytes,
        output_shape=_channels_last(outputs[0]),
        delegate=RUNTIME,
        statistics=spread,
        covers=line.covers,
    )


def _computed(described: file.File) -> tuple[file.LayerLine, ...]:
    return tuple(line for line in described.layers if line.kind != "Input")


def _channels_last(shape: tuple[int, ...]) -> tuple[int, ...]:
    """(c, h, w) as the app's (1, h, w, c); to other ranks only the batch is added."""
    return (1, *shape[1:], shape[0]) if len(shape) == 3 else (1, *shape)


def measure(name: str, threads: int, runs: int, options: Options = DEFAULTS) -> Measurement:
    """The part of `profile` that runs in the child."""
    memory = PeakMemory()
    plain = Session(name, threads, options)
    plain.set_random()
    start = time.perf_counter_ns()
    plain.invoke()
    first_run_ms = (time.perf_counter_ns() - start) / 1e6
    peak = memory.bytes()
    stepped = _Stepped(name, threads, options)
    blobs = stepped.blobs()
    single_s = warm_up(plain)
    runs = min(max(runs, min(_MAX_RUNS, int(_MIN_S / single_s))), max(_FEWEST, int(_MAX_S / single_s)))
    turns = Turns(stepped.run, plain, max(1, round(1e-3 / single_s)), threads)
    turns.take(runs)
    layers_us = np.stack(turns.told)
    counting, _ = calm.undisturbed_rows(layers_us, np.zeros(len(layers_us)), 1e3 * turns.taken_ms, runs)
    return Measurement(
        counting, turns.plain_ms(), turns.seen, plain.load_ms, plain.prepare_ms, first_run_ms, peak, blobs
    )


class _Stepped:
    """A network that is run one layer at a time."""

    def __init__(self, name: str, threads: int, options: Options) -> None:
        self._session = Session(name, threads, options)
        self._session.set_random()
        self._layers = _computed(self._session.file)
        self._questions = [line.outputs[0] for line in self._layers]

    def blobs(self) -> dict[str, BlobShape]:
        """The shape of every blob, from one run."""
        extractor = self._session.extractor()
        names = [self._session.file.input_name, *(blob for line in self._layers for blob in line.outputs)]
        return {name: _shape(extractor.extract(name, _AS_IT_LIES)[1]) for name in names}

    def run(self) -> Array:
        """Run once and return the microseconds of every layer."""
        extract, clock = self._session.extractor().extract, time.perf_counter_ns
        spent_ns, asking_ns = [], []
        for number, blob in enumerate(self._questions):
            start = clock()
            extract(blob, _AS_IT_LIES)
            spent_ns.append(clock() - start)
            if number < _ASKED_AGAIN:
                start = clock()
                extract(blob, _AS_IT_LIES)
                asking_ns.append(clock() - start)
        return np.maximum(np.asarray(spent_ns, np.float64) - min(asking_ns), 0.0) / 1e3


def _shape(mat: Any) -> BlobShape:
    sides = {1: (mat.w,), 2: (mat.h, mat.w), 3: (mat.c, mat.h, mat.w), 4: (mat.c, mat.d, mat.h, mat.w)}[mat.dims]
    return BlobShape((sides[0] * mat.elempack, *sides[1:]), mat.elempack)
