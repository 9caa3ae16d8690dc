"""Profiles a `.tflite`: times of each operator from LiteRT's own profiler, and the latency without the profiler."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from slimseg.disk import scratch
from slimseg.errors import RuntimeFailure
from slimseg.results import Profile
from slimseg.runtimes import child
from slimseg.runtimes.benchmark import Invocable, Timing, sample, warm_up
from slimseg.runtimes.calm import Seen
from slimseg.runtimes.litert import refused
from slimseg.runtimes.litert.profiling import roof, summary
from slimseg.runtimes.litert.profiling.events import Recorder
from slimseg.runtimes.litert.profiling.trace import Trace
from slimseg.runtimes.litert.session import Session
from slimseg.runtimes.turns import Turns
from slimseg.tflite import file, runnable

_MIN_S = 0.2  # least total time of the runs: small files run more often, since events are whole microseconds
_MAX_RUNS = 2000
_MAX_S = 60.0  # most total time of the runs: slow files run less often
_FEWEST = 3
_PROBE_ROUNDS = 7
_TIMEOUT_S = 600.0


@dataclass(frozen=True)
class Start:
    """Times and memory from loading a file to its first run."""

    load_ms: float
    prepare_ms: float
    first_run_ms: float
    peak_memory_bytes: int


@dataclass(frozen=True)
class Measurement:
    """What the child returns."""

    trace: Trace  # the undisturbed runs with the profiler
    plain_ms: tuple[float, ...]  # milliseconds of the undisturbed runs without it
    seen: Seen
    start: Start
    probes: tuple[tuple[roof.Probe, float], ...]  # each probe with its milliseconds in a typical round


def profile(
    path: str | Path,
    threads: int = 1,
    runs: int = 50,
    timeout_s: float | None = _TIMEOUT_S,
    within: child.Child | None = None,
    with_roofs: bool = True,
) -> Profile:
    """Latency of a file and of each of its operators.

    Runs that other work disturbed are repeated and do not count. Runs with and without the profiler alternate.
    `latency_ms` is the median of the runs without it. A layer's latency is its mean over the runs with it, scaled to
    the speed of the runs without it: all layers and the unattributed time add up to the latency.

    Args:
        runs: number of runs with the profiler; more for small files, fewer for slow ones.
        timeout_s: seconds after which the child is killed; None waits for ever.
        within: the child to run in; by default a fresh one, so that memory and first run are those of this file alone.
        with_roofs: whether to measure the highest speed of the machine, which takes about a second; without it, no
            layer is reported as "badly served".

    Raises:
        ModelError: the file is missing or damaged, or cannot be run: its tensors are larger than memory, its inputs
            have no fixed size, or it has a custom operator without a kernel.
        RuntimeFailure: LiteRT refused the file, crashed or took longer than `timeout_s`.
    """
    path = Path(path)
    described = file.read(path)
    runnable.check(described)
    target = "slimseg.runtimes.litert.profiling.profiler:measure"
    arguments = str(path), threads, runs, summary.precisions(described) if with_roofs else ()
    try:
        with nullcontext(within) if within is not None else child.Child() as process:
            measured: Measurement = process.call(target, *arguments, timeout_s=timeout_s, about=path)
    except RuntimeFailure as error:
        raise refused.explained(described, error) from error
    timing = Timing.of(str(path), measured.plain_ms)
    summarised = summary.Summary(described, measured.trace, roof.roofs(measured.probes), timing.median_ms)
    return Profile(
        model=str(path),
        runtime="litert",
        threads=threads,
        runs=len(measured.trace.total_us),
        latency_ms=timing.median_ms,
        latency_p10_ms=timing.p10_ms,
        latency_p90_ms=timing.p90_ms,
        size_bytes=described.size_bytes,
        macs=described.macs,
        params=described.params,
        layers=summarised.layers(),
        input_shapes=tuple(tensor.shape for tensor in described.inputs),
        statistics=summarised.whole(),
        load_ms=measured.start.load_ms,
        prepare_ms=measured.start.prepare_ms,
        first_run_ms=measured.start.first_run_ms,
        peak_memory_bytes=measured.start.peak_memory_bytes,
        delegate_parts=summarised.delegate_parts,
        kernels=summarised.kernels(),
        node_types=summarised.node_types(),
        roofs=summarised.roofs,
        fallbacks=summarised.fallbacks(),
        islands=summarised.islands(),
        disturbed=measured.seen.disturbance(),
    )


def loaded(name: str, threads: int) -> Session:
    """Load a file and set random inputs."""
    session = Session(name, threads)
    session.set_random()
    return session


def measure(name: str, threads: int, runs: int, precisions: tuple[str, ...] = ()) -> Measurement:
    """The part of `profile` that runs in the child; the roofs of `precisions` are measured, too."""
    path = Path(name)
    with Recorder(path, threads, profiled=False) as plain:
        first_run_ms = plain.run()
        start = Start(plain.load_ms, plain.prepare_ms, first_run_ms, plain.peak_memory_bytes())
    with Recorder(path, threads) as recorder, scratch.folder() as folder:
        session = loaded(name, threads)
        probes = _Probes(
            {
                probe: loaded(str(written), threads)
                for precision in precisions
                for written, probe in roof.write_probes(precision, folder).items()
            },
            threads,
        )
        single_s = warm_up(session)
        runs = min(max(runs, min(_MAX_RUNS, int(_MIN_S / single_s))), max(_FEWEST, int(_MAX_S / single_s)))
        turns = Turns(recorder.events, session, max(1, round(1e-3 / single_s)), threads)
        for _ in range(2):
            recorder.run()
        turns.take(runs, probes.sample)
    trace = Trace.of(turns.told).undisturbed(runs, 1e3 * turns.taken_ms)
    return Measurement(trace, turns.plain_ms(), turns.seen, start, probes.typical())


class _Probes:
    """The files that measure the machine's roof, timed in rounds between the runs of the profiled file."""

    def __init__(self, sessions: Mapping[roof.Probe, Invocable], threads: int) -> None:
        self._sessions, self._threads = sessions, threads
        self._repeats = [max(1, round(1e-3 / warm_up(each))) for each in sessions.values()]
        self._samples_ms: list[list[float]] = [[] for _ in sessions]
        self._rounds_left = _PROBE_ROUNDS

    def sample(self, blocks_left: int) -> None:
        for _ in range(-(-self._rounds_left // blocks_left)):
            self._rounds_left -= 1
            for session, many, own in zip(self._sessions.values(), self._repeats, self._samples_ms, strict=True):
                spent_ms, taken_ms = sample(session, many, self._threads)
                own.append(spent_ms - taken_ms)

    def typical(self) -> tuple[tuple[roof.Probe, float], ...]:
        """Milliseconds of each: the lower quartile, since a roof is the speed that can be reached."""
        return tuple(
            (probe, sorted(own)[len(own) // 4]) for probe, own in zip(self._sessions, self._samples_ms, strict=True)
        )
