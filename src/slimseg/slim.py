"""`slimseg slim`: the whole path. Edit the network, recover its accuracy from itself, quantise it, prove the result.

original ──> float32 and int8 files (the baselines)
   └─ plan: head, input size, approximations, channels, each priced on the runtime
        └─ rewrite: exact edits of what is left, as the runtime likes it; every edit timed where it stands
             └─ recover: new blocks mimic the old ones, then the whole is distilled
                  └─ int8 file ──> measured against the budget: train on, or a milder plan, if it lost too much

A run keeps a journal: one that was killed goes on where it stopped when the same command is given again.
Where nothing may be asked of the user, slim_exact.py tells the shorter story.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from slimseg.errors import BudgetError, DataError, OutputError, Unsupported
from slimseg.evaluate import Evaluator
from slimseg.frontends import archive, load
from slimseg.graph import edit
from slimseg.graph.graph import Graph
from slimseg.planning import deploy, importance, journal, whatif
from slimseg.planning.budget import Budget
from slimseg.planning.in_place import InPlace
from slimseg.planning.journal import Journal, fingerprint
from slimseg.planning.plan import Plan
from slimseg.planning.planner import Evidence, Planner, deployed_precision
from slimseg.planning.recover import Recovery
from slimseg.planning.target import Target
from slimseg.planning.whatif import Precision
from slimseg.progress import Progress, Silent
from slimseg.report.files import write_json
from slimseg.report.html import write_report
from slimseg.results import AppliedEdit, BudgetCheck, Refusal, SlimResult
from slimseg.runtimes import host
from slimseg.runtimes.litert import benchmark, profiler
from slimseg.slim_exact import slim_exact
from slimseg.techniques import named
from slimseg.techniques.head import with_output
from slimseg.training.data import Folder, check_split, open_folder

CALIBRATION_IMAGES = 100
PLANNING_IMAGES = 4  # for sensitivities
SIZE_IMAGES = 48  # for the accuracy of input sizes
IMPORTANCE_IMAGES = 64  # for the channels
EFFORTS = (1.0, 0.6, 0.3)  # a plan that loses too much is followed by milder ones
LEGS = 4  # of training, where the budget names a size or a speed: a milder plan would miss those
SECONDS_PER_FILE = 2.5  # of the final timing
WORK = "work"  # the run's folder for what only the run needs
RESERVED_SHARE = 0.1  # of the time limit: kept for writing, measuring and reporting


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
            `model.pt2`, `result.json`, `report.html` and the profiles; it must not hold anything yet but an unfinished
            run of the same kind, which is gone on with.
        budget: bounds on size, speed and accuracy, and on the time to spend.
        seed: of everything random.
        progress: where to show progress; silent by default.

    Returns:
        The result, also when the budget could not be met: then the best file found, and what it misses.

    Raises:
        ModelError, DataError, BudgetError, OutputError: what the user gave cannot be used, in one sentence.
    """
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
    conditions = {
        "network": fingerprint(graph),
        "data": [str(folder.path.absolute()), len(folder.train.images), len(folder.val.images)],
        "budget": asdict(budget),
        "seed": seed,
    }
    unfinished = (Path(out) / WORK / journal.FILE).is_file()
    run = Path(out) if unfinished else _new_run(Path(out), graph)
    (run / WORK).mkdir(exist_ok=True)
    return _Job(graph, folder, run, budget, seed, evaluator, Journal(run / WORK, conditions)).run()


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
    student: Graph  # trained, in its plain form
    graph: Graph  # what the file says
    float_path: Path
    path: Path
    accuracy: deploy.Accuracy
    speedup: float


class _Job:
    """One run of `slim`, step by step; what a step found goes into the journal."""

    def __init__(
        self,
        graph: Graph,
        folder: Folder,
        out: Path,
        budget: Budget,
        seed: int,
        evaluator: Evaluator,
        kept: Journal,
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
        self.journal = kept
        self.deadline = kept.started + budget.time_limit_s
        self.work = out / WORK

    def run(self) -> SlimResult:
        if self.journal.resumed:
            self.progress.say(f"Going on with a run that was stopped after {self.journal.seconds:.0f} s")
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
        self.start = self.work / "start.tflite"  # int8 as it is shipped, before the first edit
        if "baselines" not in self.journal:
            deploy.write_float(self.graph, self.original_float)
            deploy.write_int8(self.graph, self.original_float, self.original_int8, self.calibration)
            deploy.write_deployed(self.graph, self.start, self.calibration, "int8")
            plain, *quantised = benchmark.time_files([self.original_float, self.original_int8, self.start])
            gain = benchmark.ratio(plain, quantised[0])
            self.journal["baselines"] = [*(whatif.calm_ms(each) for each in (plain, *quantised)), gain]
        self.float_ms, self.int8_ms, self.start_ms, gain = self.journal["baselines"]
        self.float_accuracy = self.evaluator.accuracy(self.original_float)
        self.int8_accuracy = self.evaluator.accuracy(self.original_int8)
        self.precision = self._chosen_precision(gain)
        if self.precision == "float32":
            self.start, self.start_ms = self.original_float, self.float_ms

    @property
    def _places(self) -> InPlace:
        return InPlace(self._asked(), self.start, self.calibration, self.precision, self.progress)

    def _chosen_precision(self, gain: float) -> Precision:
        precision = deployed_precision(self.budget, gain, self.original_float.stat().st_size)
        if precision == "float32" and self.budget.needs != "nothing":
            reason = f"measured {self.float_ms:.2f} ms in float32 and {self.int8_ms:.2f} ms in int8: kept in float32"
            self.refusals.append(Refusal(deploy.QUANTISATION, "all", reason))
            self.progress.say(f"int8 makes this network no faster ({reason})")
        return precision

    def _search(self) -> _Candidate:
        """The best of some attempts; the first that holds the budget ends the search."""
        best: _Candidate | None = None
        for number, effort in enumerate(EFFORTS):
            for candidate in self._attempts(effort, number):
                best = candidate if best is None or self._rank(candidate) > self._rank(best) else best
                if all(check.met for check in self._checks(best)):
                    return best
            if self._bounded or not self._time_for_another(number):
                break
            self.progress.say("The budget does not hold yet: trying a milder plan")
        assert best is not None
        return best

    @property
    def _bounded(self) -> bool:
        """Whether a milder plan would miss a size or a speed that the user asked for."""
        return self.budget.min_speedup is not None or self.budget.max_size_bytes is not None

    def _attempts(self, effort: float, number: int) -> Iterator[_Candidate]:
        """One plan, deployed after each leg of training."""
        plan = self._plan(effort, number)
        student = plan.graph.copy()
        if all(each.site.needs == "nothing" for each in plan.edits):
            yield self._deployed(plan, student, f"{number}")
            return
        self.progress.say("Recover: new blocks mimic the old ones, then the whole is distilled")
        folder = self.work / f"{number}"
        folder.mkdir(exist_ok=True)
        until = self.deadline - RESERVED_SHARE * self.budget.time_limit_s
        recovery = Recovery(
            self.graph, student, plan, self.folder, self.budget, self.seed, self.progress, folder,
            large_teacher=self._sees_more(student.input_size),
        )  # fmt: skip
        self._phase(f"mimicked {number}", student, partial(recovery.mimic_blocks, until))
        for leg in range(LEGS if self._bounded else 1):
            if leg and time.monotonic() >= until:
                break
            self._phase(f"distilled {number}.{leg}", student, partial(recovery.distil_whole, until, leg))
            yield self._deployed(plan, student, f"{number}.{leg}")

    def _sees_more(self, size: tuple[int, int]) -> bool:
        """Whether the original is more accurate at its own input size than at that one."""
        if size == self.graph.input_size:
            return False
        reduced = edit.at_input_size(self.graph, size)
        here, there = (self.evaluator.graph_accuracy(graph, SIZE_IMAGES) for graph in (self.graph, reduced))
        return here > there

    def _phase(self, name: str, student: Graph, train: Callable[[], None]) -> None:
        """One phase of training, or the weights that it ended with where the run went through it before."""
        path = self.work / f"{name}.safetensors"
        if name in self.journal:
            student.module.load_state_dict(load_file(path))
            return
        train()
        save_file(
            {
                key: value.clone(memory_format=torch.contiguous_format)
                for key, value in student.module.state_dict().items()
            },
            path,
        )
        self.journal[name] = path.name

    def _deployed(self, plan: Plan, student: Graph, name: str) -> _Candidate:
        """The trained network in the form that the runtime is quickest with, written, timed and evaluated."""
        graph = student
        for each in plan.rewrites:
            graph = named(each.site.technique).apply(graph, each.site)
        float_path, path = self.work / f"{name}_float.tflite", self.work / f"{name}.tflite"
        deploy.write_float(graph, float_path)
        deploy.write_deployed(graph, path, self.calibration, self.precision)
        base, mine = benchmark.time_files([self.original_float, path])
        accuracy = self.evaluator.accuracy(path)
        # The student goes on learning: this is what it was now.
        candidate = _Candidate(
            plan, student.copy(), graph.copy(), float_path, path, accuracy, benchmark.ratio(base, mine)
        )
        self.progress.say("  " + ", ".join(f"{check.name}: {check.got}" for check in self._checks(candidate)))
        return candidate

    def _plan(self, effort: float, number: int) -> Plan:
        name = f"plan {number}"
        if name in self.journal:
            return Plan.replayed(self._asked(), self.journal[name])
        self.progress.say("Plan: every candidate edit timed before and after")
        plan = self._places.paying(self._planned(effort))
        for each in plan.edits:
            self.progress.say(f"  {each.site.technique}, {each.site.layers[0]}: {each.site.variant}")
        self.journal[name] = plan.as_dict()
        return plan

    def _planned(self, effort: float) -> Plan:
        speedup = self.budget.min_speedup
        latency = None if speedup is None else lambda: whatif.file_latency_ms(self.original_float) / speedup
        target = Target(latency, self.budget.max_size_bytes)
        evidence = Evidence(
            images=lambda graph: self.evaluator.tensor(graph, PLANNING_IMAGES),
            accuracy=lambda graph: self.evaluator.graph_accuracy(graph, SIZE_IMAGES),
            importance=self._importance,
        )
        return Planner(self.graph, self.budget, self.precision, target, evidence, self.progress).plan(effort)

    def _importance(self, graph: Graph) -> Mapping[str, Tensor]:
        pipeline = host.ImagePipeline(graph.description.preprocessing, graph.input_size)
        images = [pipeline(image) for image in self.folder.sample_images(IMPORTANCE_IMAGES, seed=self.seed)]
        batches = torch.split(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2), 8)
        return importance.measured(graph, self.progress.track(batches, "measuring which channels matter"))

    def _asked(self) -> Graph:
        return with_output(self.graph, self.budget.head or self.graph.description.output_kind)

    def _time_for_another(self, number: int) -> bool:
        return (
            number + 1 < len(EFFORTS) and self.journal.seconds * (number + 2) / (number + 1) < self.budget.time_limit_s
        )

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
        shutil.copyfile(best.float_path, final_float)
        shutil.copyfile(best.path, final)
        archive.write_graph(best.student, self.out / "model.pt2")
        edits = (*best.plan.edits, *best.plan.rewrites)
        files = [self.original_float, self.original_int8, final]
        timings = benchmark.time_files([*files, self.start], seconds_per_file=SECONDS_PER_FILE)
        stages = [*self._places.stages(edits, self.work)[:-1], final] if edits else []
        steps = self._places.time(stages) if stages else ()
        photograph = self.calibration[0]
        whole = host.time_end_to_end(files, self.graph.input_size, _output_size(self.graph), image=photograph)
        accuracies = (self.float_accuracy, self.int8_accuracy, best.accuracy)
        graphs = (self.graph, self.graph, best.graph)
        baseline, plain, result = (
            deploy.summarise(*each) for each in zip(graphs, files, timings[:3], whole, accuracies, strict=True)
        )
        float32, int8, mine, start = timings
        speedup = benchmark.ratio(float32, mine)
        checks = self._checks(replace(best, path=final, speedup=speedup))
        slimmed = SlimResult(
            model=self.graph.name,
            run=str(self.out),
            baseline=baseline,
            plain_int8=plain,
            result=result,
            speedup=speedup,
            speedup_over_int8=benchmark.ratio(int8, mine),
            end_to_end_speedup=whole[0] / whole[2],
            budget_met=all(check.met for check in checks),
            budget=checks,
            edits=(
                *self._quantisation(*deploy.savings_ms([float32, start])),
                *deploy.realised(edits, steps),
            ),
            refusals=(*self.refusals, *best.plan.refusals),
            seconds=self.journal.seconds,
            host=deploy.host_name(),
            input_sizes=best.plan.input_sizes,
        )
        self._write(slimmed)
        return slimmed

    def _quantisation(self, realised_saving_ms: float) -> tuple[AppliedEdit, ...]:
        if self.precision == "float32":
            return ()
        quantised = AppliedEdit(
            technique=deploy.QUANTISATION,
            layers=("all",),
            needs="images",
            predicted_saving_ms=self.float_ms - self.start_ms,
            realised_saving_ms=realised_saving_ms,
            reason="weights and activations in 8 bits, ranges calibrated on the images, RGB bytes in",
        )
        return (quantised,)

    def _write(self, result: SlimResult) -> None:
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
