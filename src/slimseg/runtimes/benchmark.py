"""Latency of files side by side: one child, round-robin (A B C A B C ...), medians over rounds.

Interleaving makes small differences believable: a slow second of the machine hits every file alike. Files that run in
a few microseconds are repeated within a round until the clock can resolve them. Rounds that other work on the machine
disturbed do not count (`calm.py`); if they are many, up to as many rounds again are run.

Files of several runtimes can be timed together. A run goes from the prepared input to the output, as in an app;
converting pixels is not part of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from slimseg.runtimes import calm, child, registry
from slimseg.runtimes.calm import Seen
from slimseg.runtimes.runtime import Runtime

_SAMPLE_S = 1e-3  # a sample shorter than this is repeated within its round
_MIN_ROUNDS = 7
_CALM_SHARE = 0.5  # share of the planned rounds that must be undisturbed; with fewer, more rounds are run
_LONGER = 2  # on a disturbed machine at most this many times the planned rounds are run
_BLOCK = 4  # additional rounds are run in blocks of a quarter of the planned ones, at least 4


class Invocable(Protocol):
    """A loaded file of any runtime whose input is set."""

    @property
    def invoke(self) -> Callable[[], Any]: ...


@dataclass(frozen=True)
class Timing:
    """One file's latency; round i of `rounds_ms` is comparable with round i of every file timed in the same call."""

    path: str
    median_ms: float
    p10_ms: float
    p90_ms: float
    min_ms: float
    runs: int
    rounds_ms: tuple[float, ...]
    taken_ms: tuple[float, ...] = ()  # of each round, time that other work had the processor; empty if unknown

    @classmethod
    def of(cls, path: str, rounds_ms: Sequence[float], repeats: int = 1, taken_ms: Sequence[float] = ()) -> Timing:
        """Summarise all rounds, disturbed or not: one sample per round, in milliseconds, the mean of `repeats` runs."""
        p10, median, p90 = (float(value) for value in np.percentile(rounds_ms, (10, 50, 90)))
        runs = len(rounds_ms) * repeats
        return cls(path, median, p10, p90, min(rounds_ms), runs, tuple(rounds_ms), tuple(taken_ms))

    @cached_property
    def calm_ms(self) -> float:
        """The latency to report: the median over the rounds that count."""
        return float(np.median(calm.values(*self._arrays)))

    @cached_property
    def own_ms(self) -> tuple[float, ...]:
        """For every round its time on the clock, or its own processor time if other work interrupted it."""
        return tuple(calm.own_ms(*self._arrays).tolist())

    @cached_property
    def counting(self) -> tuple[bool, ...]:
        """For every round whether it was undisturbed."""
        return tuple(calm.counting(*self._arrays).tolist())

    @property
    def seen(self) -> Seen:
        return calm.seen(*self._arrays)

    @property
    def _arrays(self) -> tuple[calm.Array, calm.Array]:
        ms = np.asarray(self.rounds_ms, np.float64)
        return ms, np.asarray(self.taken_ms, np.float64) if self.taken_ms else np.zeros_like(ms)


def time_files(
    paths: Sequence[str | Path],
    threads: int = 1,
    seconds_per_file: float = 1.0,
    rounds: int | None = None,
    timeout_s: float | None = None,
    within: child.Child | None = None,
    most_rounds: int = 300,
    options: Any = None,
) -> tuple[Timing, ...]:
    """Load and warm up all files, each in the runtime that its suffix names, and time them round-robin.

    Args:
        paths: any number of files; hundreds of tiny ones are cheap with a small `seconds_per_file`.
        threads: number of threads of every runtime.
        seconds_per_file: time to spend on a file, on average; at least 7 rounds are run even if they take longer.
        rounds: an exact number of rounds, instead of a time; disturbed rounds are not repeated then.
        timeout_s: seconds after which the child is killed; None waits for ever.
        within: the child process to run in; the shared one by default.
        most_rounds: upper limit on the rounds planned from `seconds_per_file`.
        options: options for every runtime (`Runtime.open`), or a list of options, one per path, to compare them.

    Raises:
        ModelError: a file is missing or damaged.
        RuntimeFailure: a runtime is not installed, refused its file, crashed or ran out of time.
    """
    process = within or child.shared()
    names = [str(path) for path in paths]
    about = names[0] if len(names) == 1 else f"one of {len(names)} files timed together"
    target = "slimseg.runtimes.benchmark:measure"
    each = list(options) if isinstance(options, list | tuple) else [options] * len(names)
    files = [(name, registry.of(name), own) for name, own in zip(names, each, strict=True)]
    arguments = files, threads, seconds_per_file, rounds, most_rounds
    result: tuple[Timing, ...] = process.call(target, *arguments, timeout_s=timeout_s, about=about)
    return result


def ratio(numerator: Timing, denominator: Timing) -> float:
    """Latency of `numerator` divided by that of `denominator`; both come from one `time_files` call."""
    return numerator.calm_ms / denominator.calm_ms


def measure(
    files: Sequence[tuple[str, Runtime, Any]],
    threads: int,
    seconds_per_file: float,
    rounds: int | None,
    most_rounds: int,
) -> tuple[Timing, ...]:
    """The part of `time_files` that runs in the child; an entry of `files` is a path, its runtime and its options."""
    sessions = [prepared(*file, threads) for file in files]
    return in_turns([name for name, _, _ in files], sessions, seconds_per_file, rounds, most_rounds, threads)


def in_turns(
    names: Sequence[str],
    sessions: Sequence[Invocable],
    seconds_per_file: float,
    rounds: int | None,
    most_rounds: int,
    threads: int = 1,
) -> tuple[Timing, ...]:
    """Time loaded sessions round-robin; the arguments are described in `time_files`."""
    single_s = [warm_up(session) for session in sessions]
    repeats = [max(1, round(_SAMPLE_S / seconds)) for seconds in single_s]
    round_s = sum(seconds * count for seconds, count in zip(single_s, repeats, strict=True))
    wanted = rounds or min(most_rounds, max(_MIN_ROUNDS, int(seconds_per_file * len(names) / max(round_s, 1e-9))))
    samples: list[list[tuple[float, float]]] = [[] for _ in names]

    def run(count: int) -> tuple[Timing, ...]:
        for _ in range(count):
            for session, many, own in zip(sessions, repeats, samples, strict=True):
                own.append(sample(session, many, threads))
        return tuple(_timing(*each) for each in zip(names, samples, repeats, strict=True))

    timings = run(wanted)
    if rounds is not None:
        return timings
    planned_ms = _spent_ms(timings)
    while (
        len(samples[0]) < _LONGER * wanted
        and _fewest_calm(timings) < _CALM_SHARE * wanted
        and _spent_ms(timings) - planned_ms < calm.PATIENCE_MS
    ):
        timings = run(min(max(_BLOCK, wanted // _BLOCK), _LONGER * wanted - len(samples[0])))
    return timings


def _spent_ms(timings: Sequence[Timing]) -> float:
    return sum(each.runs * sum(each.rounds_ms) / len(each.rounds_ms) for each in timings)


def _timing(name: str, samples: Sequence[tuple[float, float]], repeats: int) -> Timing:
    ms, taken_ms = zip(*samples, strict=True)
    return Timing.of(name, ms, repeats, taken_ms)


def _fewest_calm(timings: Sequence[Timing]) -> int:
    """The smallest number of undisturbed rounds that any file has."""
    return min((sum(each.counting) for each in timings), default=0)


def sample(session: Invocable, repeats: int, threads: int = 1) -> tuple[float, float]:
    """Mean latency of `repeats` runs, and the part of it in which other work had the processor, both in milliseconds.

    If `repeats` is above 1, one untimed run goes first, so that every timed run finds the same state of the caches.
    """
    if repeats > 1:
        session.invoke()

    def run() -> None:
        for _ in range(repeats):
            session.invoke()

    _, spent_ms, taken_ms = calm.timed(run, threads)
    return spent_ms / repeats, taken_ms / repeats


def prepared(name: str, runtime: Runtime, options: Any = None, threads: int = 1) -> Invocable:
    """Load a file and set random inputs."""
    session = runtime.open(name, threads, options)
    session.set_random()
    return session


def warm_up(session: Invocable) -> float:
    """Run a few times and return the time of the quickest run, in seconds."""
    times: list[float] = []
    while len(times) < 3 or (sum(times) < 2e-3 and len(times) < 50):
        start = time.perf_counter()
        session.invoke()
        times.append(time.perf_counter() - start)
    return max(min(times), 1e-7)
