"""The proof of a run, its final timing: all files interleaved, every edit in place, and end to end as in an app."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from slimseg import ratios
from slimseg.graph.graph import Graph
from slimseg.graph.output import map_size
from slimseg.planning.pricing import steady
from slimseg.planning.pricing.steady import Steady
from slimseg.planning.running import deploy
from slimseg.planning.running.baselines import Baselines
from slimseg.planning.running.candidate import Candidate
from slimseg.planning.running.in_place import InPlace
from slimseg.planning.running.journal import Journal
from slimseg.planning.running.run_folder import WORK
from slimseg.report import wording
from slimseg.results import AppliedEdit, SlimResult
from slimseg.runtimes import benchmark, calm, deployed, end_to_end, registry

SECONDS_PER_FILE = 2.5  # longest timing of one file, side by side with the others
SIDE_BY_SIDE_SHARE, STEPS_SHARE, END_TO_END_SHARE = 0.1, 0.25, 0.1  # shares of the time left for the proof
_IN_INT8 = "weights and activations in 8 bits, ranges calibrated on the images, RGB bytes as input"
_IN_FLOAT = "scales and shifts folded into the layers before them, activations and padding fused"


def prove(
    original: Graph, baselines: Baselines, best: Candidate, places: InPlace, run: Path, journal: Journal
) -> SlimResult:
    """Copy the best candidate into the run's folder as `model`, and time it interleaved with the baselines.

    Nothing is skipped when time is short: each timing is only shortened so that all fit before `places.until`.
    """
    unchanged = best.path == baselines.float32.path
    final = (run / "model").with_suffix(best.path.suffix)
    registry.copy(best.float_path, run / deployed.float_name("model"))
    registry.copy(best.path, final)
    best.student.save(run / "model.pt2")
    given = [each for each in (baselines.float32, baselines.int8) if each is not None]
    files = [*(each.path for each in given), final]
    left_s = max(0.0, places.until - time.monotonic())
    timings = benchmark.time_files(
        files, seconds_per_file=min(SECONDS_PER_FILE, SIDE_BY_SIDE_SHARE * left_s / len(files))
    )
    best = replace(best, path=final)
    steps = _steps(baselines, best, places, run / WORK, time.monotonic() + STEPS_SHARE * left_s)
    latencies_ms = _side_by_side(timings, steps)
    if unchanged:
        latencies_ms[-1] = latencies_ms[0]  # both are the same file
    best = replace(best, speedup=ratios.speedup(latencies_ms[0], latencies_ms[-1]))
    whole = end_to_end.time_end_to_end(
        files, original.input_size, map_size(original), image=places.images[0], latencies_ms=latencies_ms,
        seconds=END_TO_END_SHARE * left_s,
    )  # fmt: skip
    accuracies = (*(each.accuracy for each in given), best.accuracy)
    graphs = (*([original] * len(given)), best.graph)
    baseline, *plain, result = (
        deploy.summarise(*each) for each in zip(graphs, files, latencies_ms, whole, accuracies, strict=True)
    )
    placed_before, placed_after = (deploy.placed(path, best.deployment) for path in (baselines.float32.path, best.path))
    checks = (*best.checks, *deploy.whole(placed_after))
    return SlimResult(
        model=original.name,
        run=str(run),
        baseline=baseline,
        plain_int8=plain[0] if plain else None,
        result=result,
        budget_met=all(check.met for check in checks),
        budget=checks,
        edits=_edits(baselines, best, steps),
        refusals=(*baselines.refusals, *best.plan.refusals),
        seconds=journal.seconds,
        host=deployed.host_name(best.deployment),
        input_sizes=best.plan.input_sizes,
        deployment=best.deployment,
        placed_before=placed_before,
        placed_after=placed_after,
        verdict=wording.verdict(checks),
        sources=tuple(each.told for each in original.origins),
        source_check=str(original.source_check),
        disturbed=calm.of_all([*(timing.seen for timing in timings), *(step.seen for step in steps)]),
    )


def _steps(baselines: Baselines, best: Candidate, places: InPlace, folder: Path, until: float) -> list[Steady]:
    """Time all files from the original to the deployed one: first quantisation, then every group of edits.

    Each step is an interleaved timing of its own, and begins with the file with which the step before ends. All steps
    are scaled to the pace of the first, so that the savings of all files add up to the total saving.
    """
    planned = (*best.plan.edits, *best.plan.rewrites)
    steps = []
    if baselines.start != baselines.float32.path:
        steps.append(baselines.quantising(places.progress, None if planned else best.path, places.seconds, until))
    if planned:
        steps.append(replace(places, until=until).time([*places.stages(planned, folder)[:-1], best.path]))
    return steady.in_line(steps)


def _side_by_side(timings: Sequence[benchmark.Timing], steps: Sequence[Steady]) -> list[float]:
    """Latencies of the original, of its int8 file if there is one, and of the deployed file, at the pace of the steps.

    The first and the last are taken from the steps, which were timed much longer.
    """
    original_ms, *between_ms, deployed_ms = (timing.calm_ms for timing in timings)
    if not steps:
        return [original_ms, *between_ms, deployed_ms]
    first_ms, last_ms = steps[0].latencies_ms[0], steps[-1].latencies_ms[-1]
    return [first_ms, *(each * first_ms / original_ms for each in between_ms), last_ms]


def _edits(baselines: Baselines, best: Candidate, steps: Sequence[Steady]) -> tuple[AppliedEdit, ...]:
    """The measured savings of quantisation (or of writing the file) and of each group of edits, in their order.

    Predictions are scaled to the machine's present pace, by the latency of the file before the first edit. Otherwise
    a machine that has become slower or faster since the prediction would look like a wrong prediction.
    """
    before = [] if baselines.start == baselines.float32.path else [_before_edits(baselines, steps[0])]
    planned = (*best.plan.edits, *best.plan.rewrites)
    if not planned:
        return tuple(before)
    found = steps[-1]
    pace = found.latencies_ms[0] / best.plan.start_ms if best.plan.start_ms else 1.0
    edits = [each.at_pace(pace) for each in planned]
    return (*before, *deploy.realised(edits, found.latencies_ms, found.known_errors_ms))


def _before_edits(baselines: Baselines, found: Steady) -> AppliedEdit:
    """The step from the original to the file that edits start from: int8 quantisation, or rewriting by slimseg."""
    pace = found.latencies_ms[0] / baselines.float32.latency_ms
    (realised_saving_ms,) = found.savings_ms
    errors_ms = found.known_errors_ms
    quantised = baselines.int8 is not None and baselines.deployment.precision == "int8"
    return AppliedEdit(
        technique=deploy.QUANTISATION if quantised else deploy.WRITING,
        layers=("all",),
        needs="images" if baselines.deployment.precision == "int8" else "nothing",
        predicted_saving_ms=pace * (baselines.float32.latency_ms - baselines.start_ms),
        realised_saving_ms=realised_saving_ms,
        reason=_IN_INT8 if baselines.deployment.precision == "int8" else _IN_FLOAT,
        realised_error_ms=errors_ms[0] if errors_ms else None,
    )
