"""The baselines of a run: the original network as an app would deploy it without slimseg.

The first baseline is the user's own file or, if there is none, a file written from the unedited network. The second is
the same network quantised to int8, if the runtime supports int8. A third file is the starting point of the edits: the
original, written by slimseg in the precision that will be deployed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from slimseg.deployment import Deployment, Precision
from slimseg.graph.graph import Graph
from slimseg.planning.choosing.budget import Budget
from slimseg.planning.pricing import steady
from slimseg.planning.pricing.own import own_file_for
from slimseg.planning.pricing.steady import Steady
from slimseg.planning.running import deploy
from slimseg.planning.running.journal import Journal
from slimseg.planning.running.run_folder import WORK
from slimseg.progress import Progress
from slimseg.results import Refusal
from slimseg.runtimes import benchmark, deployed, registry
from slimseg.runtimes.runtime import Runtime
from slimseg.training.metrics import Accuracy

WORTH_QUANTISING = 1.05  # least speed-up for which int8 is used: less is noise, and int8 costs accuracy
QUANTISATION_SECONDS = 30.0  # longest time spent on timing what quantisation alone saves
_ENTRY = "baselines"  # name of the entry in the journal


@dataclass(frozen=True)
class Baseline:
    """One file of the unedited original."""

    path: Path
    latency_ms: float
    accuracy: Accuracy


@dataclass(frozen=True)
class Baselines:
    """The measured files of the original, and the precision to deploy."""

    float32: Baseline  # the user's own file in any precision; otherwise a float32 file with the original's weights
    int8: Baseline | None  # None if the runtime has no int8, or if the user's own file is int8
    start: Path  # the original in the deployed precision, before the first edit
    start_ms: float
    deployment: Deployment
    refusals: tuple[Refusal, ...]  # refusal of int8, if int8 is not faster

    def quantising(
        self,
        progress: Progress,
        deployed: Path | None = None,
        seconds: float = QUANTISATION_SECONDS,
        until: float = math.inf,
    ) -> Steady:
        """Time the original in float32 and the file that edits start from (or `deployed`, if given) once more.

        `seconds` is the longest time to spend; `until` is a `time.monotonic()` at which timing ends.
        """
        files = [self.float32.path, deployed or self.start]
        return steady.time_files(files, min(seconds, QUANTISATION_SECONDS), progress, until=until)

    def for_deployment(self, deployment: Deployment) -> Baselines:
        """The baselines for a file of this deployment: if it differs, edits start from the original float file."""
        if deployment == self.deployment:
            return self
        return replace(self, start=self.float32.path, start_ms=self.float32.latency_ms, deployment=deployment)


def measured(
    graph: Graph,
    budget: Budget,
    run: Path,
    images: deploy.Images,
    accuracy: Callable[[Path], Accuracy],
    journal: Journal,
    progress: Progress,
    seconds: float = QUANTISATION_SECONDS,
    until: float = math.inf,
) -> Baselines:
    """Write and time the baselines in the run's folder; a resumed run reads the times from its journal.

    Args:
        images: calibration images for the ranges of int8.
        accuracy: measures the accuracy of a deployed file.
        seconds: longest time to spend on timing.
        until: a `time.monotonic()` at which timing ends, even if the standard errors are still large.
    """
    its, in_float = registry.named(budget.runtime), budget.deployment
    if "int8" not in its.precisions:
        return _in_float_alone(graph, its, in_float, run, accuracy, journal)
    in_int8 = replace(in_float, precision="int8")
    own, work = own_file_for(graph, its.name), run / WORK
    is_int8 = own is not None and its.precision(own) == "int8"
    original = own or run / f"original_float{its.suffix}"
    start_float = work / f"start_float{its.suffix}" if own else original
    start_int8, plain = work / f"start{its.suffix}", run / f"original_int8{its.suffix}"
    files = list(dict.fromkeys([original, start_int8] if is_int8 else [original, start_float, start_int8, plain]))
    if _ENTRY not in journal:
        deployed.write_deployed(graph, start_int8, images, in_int8)
        if not is_int8:
            its.write(graph, start_float)
            deployed.write_plain_int8(graph, plain, images)
        # Time until the saving from the original to the file that edits start from has a small standard error.
        count = files.index(start_int8) + 1
        most_s = min(seconds, QUANTISATION_SECONDS)
        found = steady.time_files(files, most_s, progress, lambda now: steady.all_known(now.of(count)), until)
        journal.keep(_ENTRY, found.latencies_ms, files)
    latencies_ms = dict(zip(files, journal[_ENTRY], strict=True))
    baseline = Baseline(
        original, latencies_ms[original], accuracy(original)
    )  # first: its masks are the reference for all others
    if is_int8:
        return Baselines(baseline, None, start_int8, latencies_ms[start_int8], in_int8, ())
    int8 = Baseline(plain, latencies_ms[plain], accuracy(plain))
    given = Baselines(baseline, int8, start_int8, latencies_ms[start_int8], in_int8, ())
    float_ms = latencies_ms[start_float]
    if deployed_precision(budget, float_ms / int8.latency_ms, start_float.stat().st_size) == "int8":
        return given
    reason = f"measured {float_ms:.2f} ms in float32 and {int8.latency_ms:.2f} ms in int8, so it stays in float32"
    refusal = Refusal(deploy.QUANTISATION, "all", reason)
    return replace(given, start=start_float, start_ms=float_ms, deployment=in_float, refusals=(refusal,))


def _in_float_alone(
    graph: Graph,
    its: Runtime,
    deployment: Deployment,
    run: Path,
    accuracy: Callable[[Path], Accuracy],
    journal: Journal,
) -> Baselines:
    """Baselines on a runtime without int8: edits start from the original itself."""
    path = own_file_for(graph, its.name) or run / f"original_float{its.suffix}"
    if _ENTRY not in journal:
        if not path.is_file():
            its.write(graph, path)
        (timing,) = benchmark.time_files([path])
        journal.keep(_ENTRY, [timing.calm_ms], its.files(path))
    (latency_ms,) = journal[_ENTRY]
    return Baselines(Baseline(path, latency_ms, accuracy(path)), None, path, latency_ms, deployment, ())


def deployed_precision(budget: Budget, gain: float, float_bytes: int) -> Precision:
    """int8, unless the outputs must stay equal (quantisation needs images and changes values) or int8 is not faster.

    `gain` is the original's speed-up in int8, and `float_bytes` its size in float32. If the float file exceeds the
    budget's size, int8 is used even if it is not faster.
    """
    if budget.needs == "nothing":
        return budget.deployment.precision
    needed = budget.max_size_bytes is not None and float_bytes > budget.max_size_bytes
    return "int8" if needed or gain >= WORTH_QUANTISING else budget.deployment.precision
