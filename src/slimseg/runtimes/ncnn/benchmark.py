"""Latency of ncnn and LiteRT files side by side: one child, round-robin, so that a slow second hits all alike.

An ncnn run is a fresh extractor, its input and its output, as an app has them; converting pixels is neither's.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from slimseg.runtimes import child
from slimseg.runtimes.litert.benchmark import Invocable, Timing, in_turns
from slimseg.runtimes.litert.benchmark import prepared as litert_prepared
from slimseg.runtimes.ncnn.session import DEFAULTS, Options, Session


def time_files(
    paths: Sequence[str | Path],
    threads: int = 1,
    seconds_per_file: float = 1.0,
    rounds: int | None = None,
    timeout_s: float | None = None,
    within: child.Child | None = None,
    most_rounds: int = 300,
    options: Options | Sequence[Options] = DEFAULTS,
) -> tuple[Timing, ...]:
    """Time every file, `.param` or `.tflite`, all loaded and warmed up, in turns.

    Times of one call are comparable round by round: `litert.benchmark.ratio`.

    Args:
        paths: any number of files of both kinds.
        options: of the ncnn ones; or one for every path, to compare options in one run.
        others: as for `litert.benchmark.time_files`.

    Raises:
        ModelError: a file is missing or damaged.
        RuntimeFailure: ncnn is not installed, a runtime refused its file, crashed or ran out of time.
    """
    names = [str(path) for path in paths]
    about = names[0] if len(names) == 1 else f"one of {len(names)} files timed together"
    target = "slimseg.runtimes.ncnn.benchmark:measure"
    each = [options] * len(names) if isinstance(options, Options) else list(options)
    arguments = names, threads, seconds_per_file, rounds, most_rounds, each
    result: tuple[Timing, ...] = (within or child.shared()).call(target, *arguments, timeout_s=timeout_s, about=about)
    return result


def measure(
    names: list[str],
    threads: int,
    seconds_per_file: float,
    rounds: int | None,
    most_rounds: int,
    options: list[Options],
) -> tuple[Timing, ...]:
    """What `time_files` runs in the child."""
    sessions = [prepared(name, threads, own) for name, own in zip(names, options, strict=True)]
    return in_turns(names, sessions, seconds_per_file, rounds, most_rounds)


def prepared(name: str, threads: int, options: Options = DEFAULTS) -> Invocable:
    """A loaded session of the runtime that the file is for, with random inputs in place."""
    if Path(name).suffix == ".tflite":
        return litert_prepared(name, threads)
    session = Session(name, threads, options)
    session.set_random()
    return session
