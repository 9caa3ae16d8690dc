"""The files of a finished run: profiles before and after, the report, and the result as JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from slimseg.pace import at_latency
from slimseg.report.files import write_json
from slimseg.report.html import write_report
from slimseg.report.images import Example
from slimseg.results import SlimResult
from slimseg.runtimes import registry

RUNS, FEWEST_RUNS = 50, 3
PROFILES_SHARE, START_S = 0.6, 5.0  # share of the seconds that is for the profiles; to load a file for each


def write_run(
    result: SlimResult,
    original: Path,
    examples: Sequence[Example],
    classes: Sequence[str],
    seconds: float = math.inf,
) -> None:
    """Profile the original file and the run's own file, and write all four files into the run's folder.

    `result.json` is written last, so a run that has it is complete. `seconds` is roughly the time for both profiles:
    a slow network is run fewer times.
    """
    run = Path(result.run)
    files = ((original, result.before), (run / result.after.file, result.after))
    before, after = (
        at_latency(registry.of(path).profile(path, runs=_runs(told.latency_ms, seconds)), told.latency_ms)
        for path, told in files
    )
    write_json(before, run / "profile_before.json")
    write_json(after, run / "profile_after.json")
    write_report(result, run / "report.html", before=before, after=after, examples=examples, classes=classes)
    write_json(result, run / "result.json")


def _runs(latency_ms: float, seconds: float) -> int:
    """Number of profiled runs of each of the two files; a run, its partner without the profiler and disturbed ones that
    are repeated take about four times the latency."""
    if seconds == math.inf:
        return RUNS
    left_s = PROFILES_SHARE / 2 * seconds - START_S
    return max(FEWEST_RUNS, min(RUNS, int(left_s / (4 * latency_ms / 1e3))))
