"""The proof of a run: all files side by side, every edit where it stands, and what an app would see end to end."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from slimseg.frontends import archive
from slimseg.graph.graph import Graph
from slimseg.graph.output import map_size
from slimseg.planning import deploy
from slimseg.planning.baselines import Baselines
from slimseg.planning.candidate import Candidate
from slimseg.planning.in_place import InPlace
from slimseg.planning.journal import Journal
from slimseg.planning.run_folder import WORK
from slimseg.planning.whatif import calm_ms
from slimseg.report import wording
from slimseg.results import AppliedEdit, SlimResult
from slimseg.runtimes import benchmark, host, runtime

SECONDS_PER_FILE = 2.5  # of timing
_IN_INT8 = "weights and activations in 8 bits, ranges calibrated on the images, RGB bytes in"
_IN_FLOAT = "scales and shifts folded into the layers before them, activations and pads fused"


def prove(
    original: Graph, baselines: Baselines, best: Candidate, places: InPlace, run: Path, journal: Journal
) -> SlimResult:
    """Put the best candidate into the run's folder as `model`, and measure it beside the baselines."""
    final = (run / "model").with_suffix(best.path.suffix)
    shutil.copyfile(best.float_path, run / "model_float.tflite")
    runtime.copy(best.path, final)
    archive.write_graph(best.student, run / "model.pt2")
    given = [each for each in (baselines.float32, baselines.int8) if each is not None]
    files = [*(each.path for each in given), final]
    timings = benchmark.time_files(files, seconds_per_file=SECONDS_PER_FILE)
    float32, *_, mine = timings
    latencies_ms = [calm_ms(timing) for timing in timings]
    best = replace(best, path=final, speedup=benchmark.ratio(float32, mine))
    edits = (*_before_edits(baselines, places), *_realised(best, places, run / WORK))
    whole = host.time_end_to_end(files, original.input_size, map_size(original), image=places.images[0])
    accuracies = (*(each.accuracy for each in given), best.accuracy)
    graphs = (*([original] * len(given)), best.graph)
    baseline, *plain, result = (
        deploy.summarise(*each) for each in zip(graphs, files, latencies_ms, whole, accuracies, strict=True)
    )
    return SlimResult(
        model=original.name,
        run=str(run),
        baseline=baseline,
        plain_int8=plain[0] if plain else None,
        result=result,
        speedup=best.speedup,
        speedup_over_int8=benchmark.ratio(timings[1], mine) if plain else None,
        end_to_end_speedup=whole[0] / whole[-1],
        budget_met=best.holds,
        budget=best.checks,
        edits=edits,
        refusals=(*baselines.refusals, *best.plan.refusals),
        seconds=journal.seconds,
        host=deploy.host_name(best.budget.runtime),
        input_sizes=best.plan.input_sizes,
        runtime=best.budget.runtime,
        verdict=wording.verdict(best.checks),
        sources=tuple(each.told for each in original.origins),
    )


def _realised(best: Candidate, places: InPlace, folder: Path) -> tuple[AppliedEdit, ...]:
    """What each group of edits really saved on top of those before it.

    A prediction is a share of the time before the first edit: milliseconds of a machine that has become slower or
    faster since then would compare the machine, not the edit.
    """
    planned = (*best.plan.edits, *best.plan.rewrites)
    if not planned:
        return ()
    found = places.time([*places.stages(planned, folder)[:-1], best.path])
    pace = found.latencies_ms[0] / best.plan.start_ms if best.plan.start_ms else 1.0
    return deploy.realised([each.at_pace(pace) for each in planned], found.latencies_ms, found.known_errors_ms)


def _before_edits(baselines: Baselines, places: InPlace) -> tuple[AppliedEdit, ...]:
    """What lies between the original and the file that edits start from: 8 bits, or the same written by slimseg."""
    if baselines.start == baselines.float32.path:
        return ()
    found = baselines.quantising(places.progress)
    pace = found.latencies_ms[0] / baselines.float32.latency_ms
    (realised_saving_ms,) = found.savings_ms
    errors_ms = found.known_errors_ms
    quantised = baselines.int8 is not None and baselines.precision == "int8"
    made = AppliedEdit(
        technique=deploy.QUANTISATION if quantised else deploy.WRITING,
        layers=("all",),
        needs="images" if baselines.precision == "int8" else "nothing",
        predicted_saving_ms=pace * (baselines.float32.latency_ms - baselines.start_ms),
        realised_saving_ms=realised_saving_ms,
        reason=_IN_INT8 if baselines.precision == "int8" else _IN_FLOAT,
        realised_error_ms=errors_ms[0] if errors_ms else None,
    )
    return (made,)
