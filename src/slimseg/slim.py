"""`slimseg slim`: the whole path. Edit the network, recover its accuracy from itself, quantise it, prove the result.

original ──> float32 and int8 files (the baselines)
   └─ plan: head, input size, approximations, each priced on the runtime
        └─ recover: new blocks mimic the old ones, then the whole is distilled
             └─ rewrite: exact edits of what is left, as the runtime likes it
                  └─ int8 file ──> measured against the budget; a milder plan if it lost too much

Where nothing may be asked of the user, slim_exact.py tells the shorter story.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path

from slimseg.errors import BudgetError, DataError, OutputError, Unsupported
from slimseg.evaluate import Evaluator
from slimseg.frontends import archive, load
from slimseg.graph import costs
from slimseg.graph.graph import Graph
from slimseg.planning import deploy
from slimseg.planning.budget import Budget
from slimseg.planning.exact import ExactEdits, same_kind
from slimseg.planning.plan import Evidence, Plan, Planner, Target, deployed_precision
from slimseg.planning.recover import recover
from slimseg.planning.whatif import Precision
from slimseg.progress import Progress, Silent
from slimseg.report.files import write_json
from slimseg.report.html import write_report
from slimseg.results import AppliedEdit, BudgetCheck, ModelSummary, Refusal, SlimResult
from slimseg.runtimes import host
from slimseg.runtimes.litert import benchmark, profiler
from slimseg.slim_exact import slim_exact
from slimseg.techniques import REWRITES
from slimseg.techniques.head import with_output
from slimseg.training.data import Folder, check_split, open_folder

CALIBRATION_IMAGES = 100
PLANNING_IMAGES = 4  # for sensitivities
SIZE_IMAGES = 48  # for the accuracy of input sizes
EFFORTS = (1.0, 0.6, 0.3)  # a plan that loses too much is followed by milder ones
RESERVED_SHARE = 0.25  # of the time limit: kept for writing, measuring and reporting


def slim(
    model: Graph | str | Path,
    data: str | Path | None,
    out: str | Path,
    budget: Budget | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> SlimResult:
    """Make a network small and fast within a budget, and prove it.

    Args:
        model: an opened Graph (with its preprocessing), or the path of any file that `load` opens.
        data: a folder with train/val x images/masks, or images alone; None where the budget needs nothing.
        out: folder for `model.tflite` (int8; float32 where the budget needs nothing), `model_float.tflite` beside int8,
            `model.pt2`, `result.json`, `report.html` and the profiles; it must not hold anything yet.
        budget: bounds on size, speed and accuracy, and on the time to spend.
        seed: of everything random.
        progress: where to show progress; silent by default.

    Returns:
        The result, also when the budget could not be met: then the best file found, and what it misses.

    Raises:
        ModelError, DataError, BudgetError, OutputError: what the user gave cannot be used, in one sentence.
    """
    started = time.monotonic()
    budget = budget or Budget()
    if data is None and budget.needs != "nothing":
        raise DataError(f"edits that need {budget.needs} need a folder of them: give --data, or --needs nothing")
    graph = model if isinstance(model, Graph) else load(model)
    _check_head(graph, budget)
    if data is None:
        return slim_exact(graph, _new_run(Path(out), graph), budget, None, progress)
    folder = open_folder(data)
    evaluator = Evaluator(folder, graph, progress or Silent())
    for split in (folder.train, folder.val):
        check_split(split, evaluator.count)
    if budget.needs == "nothing":
        return slim_exact(graph, _new_run(Path(out), graph), budget, evaluator, progress)
    job = _Job(graph, folder, _new_run(Path(out), graph), budget, seed, evaluator, started)
    return job.run()


def _check_head(graph: Graph, budget: Budget) -> None:
    try:
        with_output(graph, budget.head or graph.description.output_kind)
    except Unsupported as error:
        raise BudgetError(f"--head {budget.head} cannot be had: {error}") from error


def _new_run(out: Path, graph: Graph) -> Path:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(f"{out} exists already and is not empty: give another folder for the run")
    needed = 8 * sum(p.numel() * 4 for p in graph.module.parameters()) + 50_000_000
    try:
        free = shutil.disk_usage(next(each for each in (out, *out.absolute().parents) if each.exists())).free
        if free < needed:
            room = f"{free / 1e6:.0f} MB of free space, a run needs {needed / 1e6:.0f} MB"
            raise OutputError(f"{out} has {room}: make room")
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{out} cannot be made: {error.strerror or error}") from error
    return out


@dataclass(frozen=True)
class _Candidate:
    """One attempt, deployed and measured."""

    plan: Plan
    graph: Graph  # trained, in its plain form; the plan's graph is what the file says
    float_path: Path
    path: Path
    accuracy: deploy.Accuracy
    speedup: float


class _Job:
    """One run of `slim`, step by step."""

    def __init__(
        self, graph: Graph, folder: Folder, out: Path, budget: Budget, seed: int, evaluator: Evaluator, started: float
    ) -> None:
        self.graph = graph
        self.folder = folder
        self.out = out
        self.budget = budget
        self.seed = seed
        self.precision: Precision = "int8"  # until the baselines are measured
        self.refusals: list[Refusal] = []
        self.evaluator = evaluator
        self.progress = evaluator.progress
        self.deadline = started + budget.time_limit_s
        self.started = started
        self.work = out / "work"
        self.work.mkdir()

    def run(self) -> SlimResult:
        self._baselines()
        best = self._search()
        result = self._measure(best)
        shutil.rmtree(self.work, ignore_errors=True)
        return result

    def _baselines(self) -> None:
        self.progress.say("Baselines: the original as float32 and as plain int8")
        self.calibration = self.folder.sample_images(CALIBRATION_IMAGES, seed=self.seed)
        self.original_float = self.out / "original_float.tflite"
        self.original_int8 = self.out / "original_int8.tflite"
        deploy.write_float(self.graph, self.original_float)
        deploy.write_int8(self.graph, self.original_float, self.original_int8, self.calibration)
        self.float_accuracy = self.evaluator.accuracy(self.original_float)
        self.int8_accuracy = self.evaluator.accuracy(self.original_int8)
        plain, quantised = benchmark.time_files([self.original_float, self.original_int8])
        self.float_ms, self.int8_ms = plain.median_ms, quantised.median_ms
        self.precision = self._chosen_precision(benchmark.ratio(plain, quantised))

    def _chosen_precision(self, gain: float) -> Precision:
        precision = deployed_precision(self.budget, gain, self.original_float.stat().st_size)
        if precision == "float32" and self.budget.needs != "nothing":
            reason = f"measured {self.float_ms:.2f} ms in float32 and {self.int8_ms:.2f} ms in int8: kept in float32"
            self.refusals.append(Refusal(deploy.QUANTISATION, "all", reason))
            self.progress.say(f"int8 makes this network no faster ({reason})")
        return precision

    def _search(self) -> _Candidate:
        best: _Candidate | None = None
        for number, effort in enumerate(EFFORTS):
            candidate = self._attempt(effort, number)
            if best is None or self._rank(candidate) > self._rank(best):
                best = candidate
            if all(check.met for check in self._checks(best)) or not self._time_for_another(number):
                break
            self.progress.say("The budget does not hold yet: trying a milder plan")
        assert best is not None
        return best

    def _attempt(self, effort: float, number: int) -> _Candidate:
        self.progress.say("Plan: every candidate edit timed before and after")
        plan = self._plan(effort)
        for edit in plan.edits:
            self.progress.say(f"  {edit.site.technique}, {edit.site.layers[0]}: {edit.site.variant}")
        student = plan.graph.copy()
        if any(edit.site.needs != "nothing" for edit in plan.edits):
            self.progress.say("Recover: new blocks mimic the old ones, then the whole is distilled")
            until = self.deadline - RESERVED_SHARE * self.budget.time_limit_s
            checkpoints = self.work / f"{number}"
            checkpoints.mkdir()
            recover(self.graph, student, plan, self.folder, self.budget, until, self.seed, self.progress, checkpoints)
        plan = self._rewritten(plan, student)
        float_path, path = self.work / f"{number}_float.tflite", self.work / f"{number}.tflite"
        deploy.write_float(plan.graph, float_path)
        if self.precision == "int8":
            deploy.write_int8(plan.graph, float_path, path, self.calibration)
        else:
            shutil.copyfile(float_path, path)
        base, mine = benchmark.time_files([self.original_float, path])
        accuracy = self.evaluator.accuracy(path)
        return _Candidate(plan, student, float_path, path, accuracy, benchmark.ratio(base, mine))

    def _rewritten(self, plan: Plan, student: Graph) -> Plan:
        """The trained network in the form that the runtime is quickest with; training saw the plain one."""
        found = ExactEdits(student, REWRITES, self.precision, self.progress, self._objection).run()
        refusals = (*plan.refusals, *(refusal for refusal in found.refusals if refusal not in plan.refusals))
        return Plan(found.graph, (*plan.edits, *found.edits), refusals)

    def _objection(self, before: Graph, after: Graph) -> str | None:
        """A bound on the size comes before time: some rewrites hold zeros or repeated constants."""
        if self.budget.max_size_bytes is not None and costs.total(after).params > costs.total(before).params:
            return "it has more parameters, and the file's size is bounded"
        return same_kind(before, after)

    def _plan(self, effort: float) -> Plan:
        latency = self.float_ms / self.budget.min_speedup if self.budget.min_speedup else None
        target = Target(latency, self.budget.max_size_bytes)
        evidence = Evidence(
            images=lambda graph: self.evaluator.tensor(graph, PLANNING_IMAGES),
            accuracy=lambda graph: self.evaluator.graph_accuracy(graph, SIZE_IMAGES),
        )
        size = self.original_int8.stat().st_size
        return Planner(self.graph, self.budget, self.precision, target, evidence, size, self.progress).plan(effort)

    def _time_for_another(self, number: int) -> bool:
        spent = time.monotonic() - self.started
        return number + 1 < len(EFFORTS) and time.monotonic() + spent / (number + 1) < self.deadline

    def _rank(self, candidate: _Candidate) -> tuple[int, float]:
        """More of the budget met, then less lost."""
        return sum(check.met for check in self._checks(candidate)), -self._drop(candidate)

    def _drop(self, candidate: _Candidate) -> float:
        """Points of mIoU lost; without labels, percent of pixels that changed class."""
        if candidate.accuracy.miou is not None and self.float_accuracy.miou is not None:
            return self.float_accuracy.miou - candidate.accuracy.miou
        return 100 - (candidate.accuracy.agreement or 0.0)

    def _checks(self, candidate: _Candidate) -> tuple[BudgetCheck, ...]:
        labelled = candidate.accuracy.miou is not None
        unit = "points of mIoU" if labelled else "% of pixels changed"
        drop = self._drop(candidate)
        checks = [
            BudgetCheck(
                "max_drop", f"at most {self.budget.max_drop:g} {unit}", f"{drop:.2f}", drop <= self.budget.max_drop
            )
        ]
        return (*checks, *deploy.size_and_speed(self.budget, candidate.path.stat().st_size, candidate.speedup))

    def _measure(self, best: _Candidate) -> SlimResult:
        self.progress.say("Proof: the deployed files side by side")
        final_float, final = self.out / "model_float.tflite", self.out / "model.tflite"
        shutil.move(best.float_path, final_float)
        shutil.move(best.path, final)
        archive.write_graph(best.graph, self.out / "model.pt2")
        files = [self.original_float, self.original_int8, final]
        edits = best.plan.edits
        asked = with_output(self.graph, self.budget.head or self.graph.description.output_kind)
        stages = deploy.write_stages(asked, edits, self.work, self.calibration, self.precision, self.progress)
        timings = benchmark.time_files([*files, *stages], seconds_per_file=2.5)
        whole = host.time_end_to_end(files, self.graph.input_size, _output_size(self.graph))
        accuracies = (self.float_accuracy, self.int8_accuracy, best.accuracy)
        graphs = (self.graph, self.graph, best.plan.graph)
        baseline, plain, result = (
            deploy.summarise(*each) for each in zip(graphs, files, timings[:3], whole, accuracies, strict=True)
        )
        speedup = benchmark.ratio(timings[0], timings[2])
        checks = self._checks(replace(best, path=final, speedup=speedup))
        start = timings[0] if self.precision == "float32" else timings[1]
        slimmed = SlimResult(
            model=self.graph.name,
            run=str(self.out),
            baseline=baseline,
            plain_int8=plain,
            result=result,
            speedup=speedup,
            speedup_over_int8=benchmark.ratio(timings[1], timings[2]),
            end_to_end_speedup=whole[0] / whole[2],
            budget_met=all(check.met for check in checks),
            budget=checks,
            edits=(*self._quantisation(baseline, plain), *deploy.realised(edits, (start, *timings[3:], timings[2]))),
            refusals=(*self.refusals, *best.plan.refusals),
            seconds=time.monotonic() - self.started,
            host=deploy.host_name(),
        )
        self._write(slimmed, best)
        return slimmed

    def _quantisation(self, baseline: ModelSummary, plain: ModelSummary) -> tuple[AppliedEdit, ...]:
        if self.precision == "float32":
            return ()
        quantised = AppliedEdit(
            technique=deploy.QUANTISATION,
            layers=("all",),
            needs="images",
            predicted_saving_ms=self.float_ms - self.int8_ms,
            realised_saving_ms=baseline.latency_ms - plain.latency_ms,
            reason="weights and activations in 8 bits, ranges calibrated on the images",
        )
        return (quantised,)

    def _write(self, result: SlimResult, best: _Candidate) -> None:
        before, after = profiler.profile(self.original_float), profiler.profile(self.out / "model.tflite")
        write_json(before, self.out / "profile_before.json")
        write_json(after, self.out / "profile_after.json")
        examples = self.evaluator.examples(self.original_float, self.out / "model.tflite")
        write_report(
            result,
            self.out / "report.html",
            before=before,
            after=after,
            examples=examples,
            classes=self.evaluator.classes,
        )
        write_json(result, self.out / "result.json")


def _output_size(graph: Graph) -> tuple[int, int]:
    shape = graph.shape(graph.output)
    return shape[-2], shape[-1]
