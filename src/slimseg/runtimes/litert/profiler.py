"""Where the time of a `.tflite` goes: what the official profiler saw, by operator, beside the plain latency."""

from __future__ import annotations

import tempfile
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from slimseg.errors import RuntimeFailure
from slimseg.results import Profile
from slimseg.runtimes import child
from slimseg.runtimes.benchmark import Invocable, Timing, prepared, sample_ms, warm_up
from slimseg.runtimes.litert import file, roof, runnable, summary
from slimseg.runtimes.litert.events import Recorder
from slimseg.runtimes.litert.trace import Event, Trace

_BLOCK = 5  # runs with the profiler, then as many without, so that both see the same machine
_MIN_S = 0.2  # small files run more often: events are whole microseconds
_MAX_RUNS = 2000
_MAX_S = 60.0  # slow ones less often
_FEWEST = 3
_PROBE_ROUNDS = 7
_TIMEOUT_S = 600.0


@dataclass(frozen=True)
class Start:
    """What getting ready takes, and the first run."""

    load_ms: float
    prepare_ms: float
    first_run_ms: float
    peak_memory_bytes: int


@dataclass(frozen=True)
class Measurement:
    """What the child hands back."""

    trace: Trace
    plain_ms: tuple[float, ...]
    start: Start
    probes: tuple[tuple[roof.Probe, float], ...]  # milliseconds of each, of the typical round


def profile(
    path: str | Path,
    threads: int = 1,
    runs: int = 50,
    timeout_s: float | None = _TIMEOUT_S,
    within: child.Child | None = None,
    with_roofs: bool = True,
) -> Profile:
    """Latency of a file and of each of its operators.

    Each layer's latency is its mean over the half of the runs whose total lies closest to the median total, so that
    layers add up to a typical run. `latency_ms` comes from runs without the profiler, in turns with those.

    Args:
        within: the child to run in; by default a fresh one, whose memory and first run are this file's alone.
        with_roofs: whether to measure what the machine reaches at best, about a second; without, no layer is
            "badly served".

    Raises:
        ModelError: the file is missing or damaged, or cannot be run: tensors larger than memory, inputs without a
            size, a custom operator that nobody has a kernel for.
        RuntimeFailure: LiteRT refused it, crashed or took longer than `timeout_s`.
    """
    path = Path(path)
    described = file.read(path)
    runnable.check(described)
    target = "slimseg.runtimes.litert.profiler:measure"
    arguments = str(path), threads, runs, summary.precisions(described) if with_roofs else ()
    try:
        with nullcontext(within) if within is not None else child.Child() as process:
            measured: Measurement = process.call(target, *arguments, timeout_s=timeout_s, about=path)
    except RuntimeFailure as error:
        raise runnable.explained(described, error) from error
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
        unattributed_ms=summarised.unattributed_ms,
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
    )


def measure(name: str, threads: int, runs: int, precisions: tuple[str, ...] = ()) -> Measurement:
    """What `profile` runs in the child; `precisions` are those whose roof to measure."""
    path = Path(name)
    with Recorder(path, threads, profiled=False) as plain:
        first_run_ms = plain.run()
        start = Start(plain.load_ms, plain.prepare_ms, first_run_ms, plain.peak_memory_bytes())
    with Recorder(path, threads) as recorder, tempfile.TemporaryDirectory(prefix="slimseg-") as folder:
        session = prepared(name, threads)
        probes = [
            (probe, prepared(str(written), threads))
            for precision in precisions
            for written, probe in roof.write_probes(precision, Path(folder)).items()
        ]
        events, plain_ms, probed = _take_turns(recorder, session, [each for _, each in probes], runs)
    typical = tuple((probe, _typical(samples)) for (probe, _), samples in zip(probes, probed, strict=True))
    return Measurement(Trace.of(events), tuple(plain_ms), start, typical)


def _take_turns(
    recorder: Recorder, session: Invocable, probes: list[Invocable], runs: int
) -> tuple[list[list[Event]], list[float], list[list[float]]]:
    """Profiled runs, plain runs, and now and then the probes of the roof: (events, milliseconds, milliseconds)."""
    single_s = warm_up(session)
    runs = min(max(runs, min(_MAX_RUNS, int(_MIN_S / single_s))), max(_FEWEST, int(_MAX_S / single_s)))
    repeats = max(1, round(1e-3 / single_s))
    probe_repeats = [max(1, round(1e-3 / warm_up(probe))) for probe in probes]
    events: list[list[Event]] = []
    plain: list[float] = []
    probed: list[list[float]] = [[] for _ in probes]
    for _ in range(2):
        recorder.run()
    blocks = range(0, runs, _BLOCK)
    rounds_left = _PROBE_ROUNDS
    for start in blocks:
        count = min(_BLOCK, runs - start)
        recorder.run()  # untimed: the caches are the other's
        events += [recorder.events() for _ in range(count)]
        session.invoke()
        plain += [sample_ms(session, repeats) for _ in range(count if repeats == 1 else 1)]
        blocks_left = len(blocks) - start // _BLOCK
        for _ in range(-(-rounds_left // blocks_left)):
            rounds_left -= 1
            for probe, own, many in zip(probes, probed, probe_repeats, strict=True):
                own.append(sample_ms(probe, many))
    return events, plain, probed


def _typical(samples: list[float]) -> float:
    """Of a probe: the quicker quarter, as a roof is what can be reached."""
    return sorted(samples)[len(samples) // 4]
