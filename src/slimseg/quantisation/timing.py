"""Time quantised files together with the original: those of similar speed in one interleaved run, slow ones separately.

Every time is scaled to the original's latency in the first run, so that all rows of a table can be compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from slimseg.runtimes import benchmark, calm
from slimseg.runtimes.calm import Seen

SECONDS_PER_FILE = 1.0
SLOW = 3.0  # multiple of the original's latency; a scheme without fast kernels takes up to 30
_ROUNDS_OF_SLOW = 2


@dataclass(frozen=True)
class Beside:
    """One file's time."""

    latency_ms: float
    original_ms: float  # latency of the original, measured in the same run
    seen: Seen = calm.NOTHING

    def at_pace(self, pace: float) -> Beside:
        """The times on a machine that takes `pace` times as long."""
        return Beside(pace * self.latency_ms, pace * self.original_ms, self.seen)


def beside_float(original: Path, paths: Sequence[Path], threads: int) -> Mapping[Path, Beside]:
    """The times of `original`, the float file, and of every other file.

    Raises:
        RuntimeFailure: the runtime refused a file or crashed.
    """
    quick_ms, *others_ms = (_quick_ms(path, threads) for path in (original, *paths))
    slow = [path for path, ms in zip(paths, others_ms, strict=True) if ms > SLOW * quick_ms]
    alike = [path for path in paths if path not in slow]
    first, *others = benchmark.time_files([original, *alike], threads, SECONDS_PER_FILE)
    found = {original: Beside(first.calm_ms, first.calm_ms, first.seen)}
    for path, timing in zip(alike, others, strict=True):
        found[path] = Beside(timing.calm_ms, first.calm_ms, timing.seen)
    for path in slow:
        own, timing = benchmark.time_files([original, path], threads, rounds=_ROUNDS_OF_SLOW)
        found[path] = Beside(timing.calm_ms, own.calm_ms, timing.seen).at_pace(first.calm_ms / own.calm_ms)
    return found


def _quick_ms(path: Path, threads: int) -> float:
    (timing,) = benchmark.time_files([path], threads, rounds=1)
    return timing.min_ms
