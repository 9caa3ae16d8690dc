"""Quantised files beside the original: those of its own speed in one interleaved run, much slower ones apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from slimseg.planning.whatif import calm_ms
from slimseg.runtimes import benchmark

SECONDS_PER_FILE = 1.0
SLOW = 3.0  # times the original's latency: a scheme without kernels of its own takes up to 30
_ROUNDS_OF_SLOW = 2


@dataclass(frozen=True)
class Beside:
    """One file's time."""

    latency_ms: float
    speedup: float  # the original's latency over its own, the median over rounds


def beside_float(original: Path, paths: Sequence[Path], threads: int) -> Mapping[Path, Beside]:
    """Of `original`, the float file, and of every other.

    Raises:
        RuntimeFailure: the runtime refused a file or crashed.
    """
    quick_ms, *others_ms = (_quick_ms(path, threads) for path in (original, *paths))
    slow = [path for path, ms in zip(paths, others_ms, strict=True) if ms > SLOW * quick_ms]
    alike = [path for path in paths if path not in slow]
    first, *others = benchmark.time_files([original, *alike], threads, SECONDS_PER_FILE)
    found = {original: Beside(calm_ms(first), 1.0)}
    for path, timing in zip(alike, others, strict=True):
        found[path] = Beside(calm_ms(timing), benchmark.ratio(first, timing))
    for path in slow:
        first, timing = benchmark.time_files([original, path], threads, rounds=_ROUNDS_OF_SLOW)
        found[path] = Beside(calm_ms(timing), benchmark.ratio(first, timing))
    return found


def _quick_ms(path: Path, threads: int) -> float:
    (timing,) = benchmark.time_files([path], threads, rounds=1)
    return timing.min_ms
