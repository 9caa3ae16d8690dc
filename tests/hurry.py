"""A child process that spends little time on measuring.

In every test it is impatient: disturbed runs are not repeated, and the machine's roof is that of small layers. For
tests whose times are those of `stopwatch` it hurries, too: it profiles with the fewest runs.
"""

from __future__ import annotations

import pickle
import subprocess
from types import ModuleType
from typing import Any

from slimseg.runtimes import calm, child, end_to_end, turns
from slimseg.runtimes.litert.profiling import profiler as litert_profiler
from slimseg.runtimes.litert.profiling import roof
from slimseg.runtimes.ncnn import profiler as ncnn_profiler

Values = list[tuple[ModuleType, str, Any]]
_running = child.Child._running
_IMPATIENT: Values = [
    (calm, "PATIENCE_MS", 0.0),
    (turns, "LONGER", 1),
    (roof, "_CONVOLUTIONS", ((1, 32, 8), (3, 8, 8))),
    (roof, "_ADDED", (1 << 8, 1 << 10)),
]
_HURRIED: Values = [
    (litert_profiler, "_MIN_S", 0.0),
    (ncnn_profiler, "_MIN_S", 0.0),
    (litert_profiler, "_PROBE_ROUNDS", 1),
    (end_to_end, "ROUNDS", 2),
    (end_to_end, "_REPEATS", 1),
]
_USUAL: Values = [(module, name, getattr(module, name)) for module, name, _ in _HURRIED]


def impatient(process: child.Child) -> subprocess.Popen[bytes]:
    """In place of `Child._running`: every new child is impatient."""
    return _begun(process, "be_impatient")


def hurrying(process: child.Child) -> subprocess.Popen[bytes]:
    """In place of `Child._running`: every new child is impatient and hurries."""
    return _begun(process, "be_impatient", "hurry")


def _begun(process: child.Child, *calls: str) -> subprocess.Popen[bytes]:
    before, started = process.pid, _running(process)
    if process.pid != before:
        assert started.stdin is not None
        assert started.stdout is not None
        for call in calls:
            child._send(started.stdin, pickle.dumps((f"{__name__}:{call}", ())))
            child._receive(started.stdout)
    return started


def be_impatient() -> None:
    """In the child."""
    _set(_IMPATIENT)


def hurry() -> None:
    """In the child."""
    _set(_HURRIED)


def take_time() -> None:
    """In the child: as before `hurry`."""
    _set(_USUAL)


def _set(values: Values) -> None:
    for module, name, value in values:
        setattr(module, name, value)
