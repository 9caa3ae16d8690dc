"""A profile as files for other tools: a table (CSV), and a timeline for chrome://tracing and ui.perfetto.dev."""

from __future__ import annotations

import csv
import io
import json
import os
from typing import Any

from slimseg.report.files import write_text
from slimseg.results import KernelProfile, LayerProfile, Profile

COLUMNS = (
    *("index", "name", "op", "delegate", "kernel", "bound", "latency_ms", "share", "cumulative"),
    *("first_ms", "average_ms", "min_ms", "max_ms", "std_ms", "times_called"),
    *("macs", "params", "memory_bytes", "gmac_per_s", "gb_per_s", "efficiency", "output_shape", "covers"),
)


def write_csv(profile: Profile, path: str | os.PathLike[str]) -> None:
    """Write one line per operator, in the file's order, with the columns in `COLUMNS`.

    Raises:
        OutputError: `path` cannot be written; an existing file stays unchanged.
    """
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(COLUMNS)
    lines.writerows(_line(index, layer) for index, layer in enumerate(profile.layers))
    write_text(text.getvalue(), path)


def write_trace(profile: Profile, path: str | os.PathLike[str]) -> None:
    """Write one typical run as trace events: a row for the network, and one per delegate.

    Raises:
        OutputError: `path` cannot be written; an existing file stays unchanged.
    """
    write_text(json.dumps(trace(profile), ensure_ascii=False, allow_nan=False) + "\n", path)


def trace(profile: Profile) -> dict[str, Any]:
    """The trace in the Trace Event Format: complete events ("X"), times in microseconds."""
    rows = {name: number for number, name in enumerate(dict.fromkeys(k.delegate for k in profile.kernels), start=2)}
    end_ms = max((kernel.start_ms + kernel.duration_ms for kernel in profile.kernels), default=0.0)
    events = [_named("process_name", 1, profile.model), _named("thread_name", 1, "network")]
    events += [_named("thread_name", number, name) for name, number in rows.items()]
    facts = {"runtime": profile.runtime, "threads": profile.threads, "latency_ms": profile.latency_ms}
    events.append(_event(profile.model, "network", 1, 0.0, end_ms, facts))
    for kernel in profile.kernels:
        layer = None if kernel.layer is None else profile.layers[kernel.layer]
        name, category = (kernel.kernel, "kernel") if layer is None else (layer.name, layer.op)
        arguments = _arguments(kernel, layer)
        events.append(_event(name, category, rows[kernel.delegate], kernel.start_ms, kernel.duration_ms, arguments))
    return {"traceEvents": events, "displayTimeUnit": "ms"}


def _line(index: int, layer: LayerProfile) -> list[Any]:
    values = {"index": index, **layer.as_dict(), **layer.statistics.as_dict()}
    values["output_shape"] = "x".join(str(size) for size in layer.output_shape)
    values["covers"] = " ".join(layer.covers)
    return [f"{values[column]:.6g}" if isinstance(values[column], float) else values[column] for column in COLUMNS]


def _arguments(kernel: KernelProfile, layer: LayerProfile | None) -> dict[str, Any]:
    own = {"kernel": kernel.kernel, "average_ms": kernel.statistics.average_ms}
    if layer is None:
        return own
    shape = "x".join(str(size) for size in layer.output_shape)
    facts = {"op": layer.op, "output": shape, "macs": layer.macs, "bytes": layer.memory_bytes, "is": layer.bound}
    return {**own, **facts, **({"covers": list(layer.covers)} if layer.covers else {})}


def _named(kind: str, row: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "name": kind, "pid": 1, "tid": row, "args": {"name": name}}


def _event(
    name: str, category: str, row: int, start_ms: float, duration_ms: float, arguments: dict[str, Any]
) -> dict[str, Any]:
    return {
        "ph": "X",
        "name": name,
        "cat": category,
        "pid": 1,
        "tid": row,
        "ts": round(start_ms * 1e3, 3),
        "dur": round(duration_ms * 1e3, 3),
        "args": arguments,
    }
