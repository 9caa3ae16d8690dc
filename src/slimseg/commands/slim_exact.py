"""`slimseg slim --needs nothing`: rewrites a network so that it runs faster with the same outputs. Needs no data.

source file ──> Graph ──> exact edits in rounds, each timed on the runtime and checked on images
   │                         └─> every edit timed in place; edits that save nothing there are removed
   │                               └─> float32 file ──> outputs and interleaved times compared with the source's
   └─ remains the deployed file if the edited file is not faster
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from slimseg import ratios
from slimseg.commands.evaluate import Evaluator
from slimseg.disk import scratch
from slimseg.graph.graph import Graph
from slimseg.graph.orders import nhwc
from slimseg.planning.choosing.budget import Budget
from slimseg.planning.choosing.exact import ExactEdits, same_kind
from slimseg.planning.choosing.plan import Plan
from slimseg.planning.choosing.whole import WholeEdits
from slimseg.planning.pricing import placing, same_outputs, steady
from slimseg.planning.pricing.own import own_file_for
from slimseg.planning.pricing.same_outputs import IMAGES, TOLERANCE
from slimseg.planning.pricing.steady import Steady
from slimseg.planning.running import deploy
from slimseg.planning.running.in_place import InPlace
from slimseg.progress import Progress, Silent
from slimseg.report import wording
from slimseg.report.run import write_run
from slimseg.results import AppliedEdit, BudgetCheck, ModelSummary, Refusal, SlimResult
from slimseg.runtimes import deployed, end_to_end, registry
from slimseg.runtimes.runtime import Kept
from slimseg.techniques import EXACT
from slimseg.techniques.head import with_output
from slimseg.training.metrics import Accuracy

SECONDS = 40.0  # longest timing of every edit in place; once for the plan and once for the proof
SEARCH_SHARE, PLACES_SHARE = 0.5, 0.4  # shares of the time left: to find edits, and to time them in place
NOT_FASTER = "no edit makes the whole network faster than the original file"
WRITING_SECONDS = 15.0  # longest timing of what rewriting the file saves without any edit


def slim_exact(
    graph: Graph,
    out: Path,
    budget: Budget,
    evaluator: Evaluator | None = None,
    progress: Progress | None = None,
    ends: float = math.inf,
) -> SlimResult:
    """Make a network faster by exact edits alone, in the new folder `out`.

    Args:
        evaluator: gives the user's images, on which outputs are compared; None: they are compared on synthetic ones.
        ends: a `time.monotonic()` at which the run has to end; edits not tried by then are left out.
    """
    with scratch.folder() as work:
        return _Exact(graph, out, budget, evaluator, progress or Silent(), work, ends).run()


@dataclass(frozen=True)
class _Deployed:
    """The file to deploy: an edited file with the plan that led to it, or the unchanged source."""

    path: Path
    plan: Plan
    difference: float  # difference between its outputs and the source's; see `same_outputs`
    writing: Steady | None = None  # times of the source and of the file before the first edit; None if they are one

    def pace(self, start_ms: float) -> float:
        """The machine's present time for the file before the first edit, over that during the predictions."""
        return start_ms / self.plan.start_ms if self.plan.start_ms else 1.0


class _Exact:
    """One run of `slim_exact`, step by step."""

    def __init__(
        self,
        graph: Graph,
        out: Path,
        budget: Budget,
        evaluator: Evaluator | None,
        progress: Progress,
        work: Path,
        ends: float = math.inf,
    ) -> None:
        self.started = time.monotonic()
        self.ends = ends
        self.original = graph
        self.asked = with_output(graph, budget.head or graph.description.output_kind)
        self.out = out
        self.budget = budget
        self.evaluator = evaluator
        self.progress = progress
        self.work = work
        self.images = _images(graph, evaluator)
        self.runtime = registry.known(budget.runtime)
        self.own = own_file_for(graph, self.runtime.name)
        self.source = self.own or out / f"original_float{self.runtime.suffix}"
        self.kept: Kept = "exact" if self.own else "rounded"  # weights of the user's own file keep their precision

    def run(self) -> SlimResult:
        if self.own is None:
            self.runtime.write(self.original, self.source)
        result = self._measure(self._search())
        self._write(result)
        return result

    def _search(self) -> _Deployed:
        if self.own is not None and (reason := self._in_8_bits(self.own)):
            return self._unchanged(f"{reason}: give `images` and `needs` images")
        self.progress.say("Exact edits: every candidate timed before and after")
        until = self._share(SEARCH_SHARE)
        settings = EXACT, self.budget.deployment, self.progress, self._objection, until
        whole = WholeEdits(self.asked, *settings).run()
        edits = ExactEdits(whole.graph, *settings).run()
        plan = self._places(self._share(PLACES_SHARE)).paying(
            Plan(edits.graph, (*whole.edits, *edits.edits), tuple(edits.refusals))
        )
        anew = self._start != self.source
        if not plan.edits and not anew:
            return self._unchanged(NOT_FASTER, plan.refusals)
        path = self.work / f"model{self.runtime.suffix}"
        self.runtime.write(plan.graph, path, self.kept)
        difference = self._changed(plan.graph)
        if difference > TOLERANCE:
            return self._unchanged(f"the edited file's outputs differ by {difference:.1e}", plan.refusals)
        if self.asked is self.original and not self._faster(path) and not self._takes_more(path):
            return self._unchanged(NOT_FASTER, plan.refusals)
        writing = self._time([self.source, self._start], WRITING_SECONDS, self._share(PLACES_SHARE)) if anew else None
        return _Deployed(path, plan, difference, writing)

    @cached_property
    def _start(self) -> Path:
        """The file before the first edit: the source, unless slimseg writes the same network differently."""
        if self.own is None and self.asked is self.original:
            return self.source
        path = self.work / f"start{self.runtime.suffix}"
        self.runtime.write(self.asked, path, self.kept)
        return path

    def _share(self, share: float) -> float:
        """The `time.monotonic()` at which this share of the remaining time will be used up."""
        now = time.monotonic()
        return now + share * max(0.0, self.ends - now)

    def _places(self, until: float) -> InPlace:
        return InPlace(self.asked, self._start, (), self.budget.deployment, self.progress, seconds=SECONDS, until=until)

    def _faster(self, path: Path) -> bool:
        source_ms, edited_ms = self._time([self.source, path], 0, self._share(PLACES_SHARE)).latencies_ms
        return edited_ms < source_ms

    def _takes_more(self, path: Path) -> bool:
        """Whether a processor that was asked for takes more layers of the file than of the source."""
        return placing.Guard(self.budget.deployment).gains_by(self.source, path)

    def _time(self, paths: Sequence[Path], seconds: float, until: float) -> Steady:
        return steady.time_files(paths, seconds, self.progress, until=until)

    def _changed(self, edited: Graph) -> float:
        """Difference of its outputs on the runtime, with all weights in float32 so that no rounding counts."""
        before, after = (self.work / f"full_{name}{self.runtime.suffix}" for name in ("before", "after"))
        if self.asked is self.original and self.own is not None:
            before = self.own
        else:
            self.runtime.write(self.asked, before, "full")
        self.runtime.write(edited, after, "full")
        return same_outputs.of_files(before, after, self.images, self.asked)

    def _in_8_bits(self, own: Path) -> str:
        """Why exact edits cannot be made in a quantised file; empty if the file is not quantised."""
        if self.runtime.precision(own) == "int8":
            return "it computes in int8, and new layers need quantisation ranges"
        if "int" in self.runtime.weights(own):
            return "its weights have 8 bits, and those of new layers would have 32"
        return ""

    def _unchanged(self, reason: str, refusals: tuple[Refusal, ...] = ()) -> _Deployed:
        self.progress.say(f"The file is left unchanged: {reason}")
        refused = (*refusals, Refusal("all edits", "all", reason))
        return _Deployed(self.source, Plan(self.original, (), refused), 0.0)

    def _objection(self, before: Graph, after: Graph) -> str | None:
        if reason := same_kind(before, after):
            return reason
        if before.shape(before.output) != after.shape(after.output):
            return f"its output would have shape {after.shape(after.output)} instead of {before.shape(before.output)}"
        difference = same_outputs.of_graphs(before, after, self.images)
        return f"outputs would differ by {difference:.1e}" if difference > TOLERANCE / 2 else None

    def _measure(self, found: _Deployed) -> SlimResult:
        self.progress.say("Proof: the files side by side")
        final = self.out / f"model{self.runtime.suffix}"
        registry.copy(found.path, final)
        files = (self.source, final)
        timed = self._proof(found, final)
        latencies_ms = (timed.latencies_ms[0], timed.latencies_ms[-1])
        ends_ms = self._end_to_end(files, latencies_ms)
        accuracies = [self.evaluator.accuracy(path) if self.evaluator else Accuracy(None, None) for path in files]
        baseline, result = (
            deploy.summarise(*each)
            for each in zip((self.original, found.plan.graph), files, latencies_ms, ends_ms, accuracies, strict=True)
        )
        placed_before, placed_after = (deploy.placed(path, self.budget.deployment) for path in files)
        checks = (
            *self._checks(result, ratios.speedup(*latencies_ms), found.difference),
            *deploy.whole(placed_after),
        )
        return SlimResult(
            model=self.original.name,
            run=str(self.out),
            baseline=baseline,
            plain_int8=None,
            result=result,
            budget_met=all(check.met for check in checks),
            budget=checks,
            edits=_applied(found, timed),
            refusals=found.plan.refusals,
            seconds=time.monotonic() - self.started,
            host=deployed.host_name(self.budget.deployment),
            max_difference=found.difference,
            deployment=self.budget.deployment,
            placed_before=placed_before,
            placed_after=placed_after,
            verdict=wording.verdict(checks),
            sources=tuple(each.told for each in self.original.origins),
            source_check=str(self.original.source_check),
            **(self.evaluator.told() if self.evaluator else {"notes": self.original.notes}),
            disturbed=timed.seen.disturbance(),
        )

    def _proof(self, found: _Deployed, final: Path) -> Steady:
        """Times of the source, of the file before the first edit if it differs, and of the file after each group."""
        if found.path == self.source:
            return self._time([self.source, final], 0, self._share(PLACES_SHARE))
        before = [self.source] if found.writing else []
        stages = self._places(self.ends).stages(found.plan.edits, self.work)
        return self._time([*before, *stages[:-1], final], SECONDS, self._share(PLACES_SHARE))

    def _end_to_end(self, files: Sequence[Path], latencies_ms: Sequence[float]) -> Sequence[float]:
        if self.original.input_shape[1] != 3:  # the input is no RGB image: no work before or behind the network
            return latencies_ms
        size = self.original.input_size
        description = self.original.description
        seconds = self._share(PLACES_SHARE) - time.monotonic()
        return end_to_end.time_end_to_end(
            files, size, size, description=description, latencies_ms=latencies_ms, seconds=seconds
        )

    def _checks(self, result: ModelSummary, speedup: float, difference: float) -> tuple[BudgetCheck, ...]:
        checks = [BudgetCheck("max_difference", f"at most {TOLERANCE:g}", f"{difference:.1e}", difference <= TOLERANCE)]
        return (*checks, *deploy.size_and_speed(self.budget, result.size_bytes, speedup))

    def _write(self, result: SlimResult) -> None:
        self.asked.save(self.out / "model.pt2")  # without the edits, as training needs it
        final = self.out / result.after.file
        examples = self.evaluator.examples(self.source, final) if self.evaluator else ()
        classes = self.evaluator.classes if self.evaluator else self.original.description.classes
        write_run(result, self.source, examples, classes, max(0.0, self.ends - time.monotonic()))


def _images(graph: Graph, evaluator: Evaluator | None) -> NDArray[np.float32]:
    """Preprocessed images on which to compare outputs (N, height, width, channels): the user's, or synthetic ones."""
    if evaluator is None or graph.input_shape[1] != 3:
        return same_outputs.drawn(graph)
    return np.ascontiguousarray(nhwc(evaluator.tensor(graph, IMAGES)).numpy())


def _applied(found: _Deployed, timed: Steady) -> tuple[AppliedEdit, ...]:
    """The measured savings: of rewriting the file, and of each group of edits on top of the groups before it."""
    latencies_ms, errors_ms = timed.latencies_ms, timed.known_errors_ms
    written: tuple[AppliedEdit, ...] = ()
    if found.writing is not None:
        pace = latencies_ms[0] / found.writing.latencies_ms[0]
        written = (
            AppliedEdit(
                technique=deploy.WRITING,
                layers=("all",),
                needs="nothing",
                predicted_saving_ms=pace * found.writing.savings_ms[0],
                realised_saving_ms=timed.savings_ms[0],
                reason="scales and shifts folded into the layers before them, activations and padding fused",
                realised_error_ms=errors_ms[0] if errors_ms else None,
            ),
        )
        latencies_ms, errors_ms = latencies_ms[1:], errors_ms and errors_ms[1:]
    if not found.plan.edits:
        return written
    edits = [each.at_pace(found.pace(latencies_ms[0])) for each in found.plan.edits]
    return (*written, *deploy.realised(edits, latencies_ms, errors_ms))
