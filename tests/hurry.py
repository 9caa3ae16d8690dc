"""A child process that profiles with the fewest runs, for tests whose times are those of `stopwatch`.

It imports no more than a child does anyway.
"""

from __future__ import annotations

import pickle
import subprocess
from types import ModuleType
from typing import Any

from slimseg.runtimes import calm, child, turns
from slimseg.runtimes.litert.profiling import profiler as litert_profiler
from slimseg.runtimes.litert.profiling import roof
from slimseg.runtimes.ncnn import profiler as ncnn_profiler

_running = child.Child._running
# As no time counts that is measured, nothing is run again because other work disturbed it.
_HURRIED: list[tuple[ModuleType, str, Any]] = [
    (calm, "PATIENCE_MS", 0.0),
    (turns, "LONGER", 1),
    (litert_profiler, "_MIN_S", 0.0),
    (ncnn_profiler, "_MIN_S", 0.0),
    (litert_profiler, "_PROBE_ROUNDS", 1),
    (roof, "_CONVOLUTIONS", ((1, 32, 8), (3, 8, 8))),
    (roof, "_ADDED", (1 << 8, 1 << 10)),
]
_USUAL = [(module, name, getattr(module, name)) for module, name, _ in _HURRIED]


def running(process: child.Child) -> subprocess.Popen[bytes]:
    """In place of `Child._running`: every new child hurries."""
    before, started = process.pid, _running(process)
    if process.pid != before:
        assert started.stdin is not None
        assert started.stdout is not None
        child._send(started.stdin, pickle.dumps((f"{__name__}:hurry", ())))
        child._receive(started.stdout)
    return started


def hurry() -> None:
    """In the child."""
    _set(_HURRIED)


def take_time() -> None:
    """In the child: as without `hurry`."""
    _set(_USUAL)


def _set(values: list[tuple[ModuleType, str, Any]]) -> None:
    for module, name, value in values:
        setattr(module, name, value)
