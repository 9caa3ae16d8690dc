"""The steps of `slim` with training: baselines, what needs no training, plans and their training, the proof.

Each step stores its result in the run's journal, so that a run that was killed goes on after the last finished step.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from slimseg.commands.evaluate import Evaluator
from slimseg.deployment import Deployment
from slimseg.errors import Unsupported
from slimseg.graph import edit
from slimseg.graph.graph import Graph
from slimseg.planning.choosing import importance
from slimseg.planning.choosing.budget import Budget
from slimseg.planning.choosing.plan import Plan
from slimseg.planning.choosing.planner import Evidence, Planner
from slimseg.planning.choosing.target import Target
from slimseg.planning.running import baselines, in_place
from slimseg.planning.running.candidate import Candidate
from slimseg.planning.running.in_place import InPlace
from slimseg.planning.running.proof import prove
from slimseg.planning.running.recover import Recovery, expected_leg_s
from slimseg.planning.running.run_folder import RunFolder
from slimseg.planning.running.time_plan import ENOUGH, TimePlan
from slimseg.planning.running.untrained import Untrained, expected_shares
from slimseg.quantisation import qat
from slimseg.report.run import write_run
from slimseg.results import SlimResult
from slimseg.runtimes import benchmark, deployed, registry
from slimseg.techniques import named
from slimseg.techniques.head import with_output
from slimseg.training.data import Folder

CALIBRATION_IMAGES = 100
PLANNING_IMAGES = 4  # images for the damage of edits
SIZE_IMAGES = 48  # images for the accuracy at each input size
IMPORTANCE_IMAGES = 64  # images for the importance of channels
EFFORTS = (1.0, 0.6, 0.3)  # efforts of successive plans: a plan that loses too much is followed by a milder one
LEGS = 4  # legs of training if the budget bounds size or speed, as a milder plan would miss such a bound
ROUNDING_COSTS = 0.3  # points lost by int8 from which on the network is trained in 8 bits
JUDGED = "judged"  # name of the entry in the journal
TIMING_SHARE = 0.06  # largest share of the time limit for timing every edit in place; once per plan and in the proof


def is_bounded(budget: Budget) -> bool:
    """Whether the budget bounds size or speed, so that a milder plan would miss the bound."""
    return budget.min_speedup is not None or budget.max_size_bytes is not None


class TrainedSlim:
    """One run of `slim`, step by step; the result of each step is stored in the journal."""

    def __init__(
        self,
        graph: Graph,
        folder: Folder,
        run: RunFolder,
        budget: Budget,
        seed: int,
        evaluator: Evaluator,
        clock: TimePlan,
    ) -> None:
        self.graph = graph
        self.folder = folder
        self.out = run.folder
        self.budget = budget
        self.seed = seed
        self.evaluator = evaluator
        self.progress = evaluator.progress
        self.journal = run.journal
        self.time = clock
        self.work = run.work

    def run(self) -> SlimResult:
        if self.journal.resumed:
            self.progress.say(f"Continuing a run that was stopped after {self.journal.seconds:.0f} s")
        self._baselines()
        return self._proof(self._search(self._untrained()))

    def _baselines(self) -> None:
        its = registry.known(self.budget.runtime)
        self.progress.say(f"Baselines: the original as {' and as plain '.join(its.precisions)} on {its.brand}")
        self.calibration = self.folder.sample_images(self.time.some(CALIBRATION_IMAGES), seed=self.seed)
        accuracy = self.evaluator.accuracy
        self.baselines = baselines.measured(
            self.graph, self.budget, self.out, self.calibration, accuracy, self.journal, self.progress, self._timing_s,
            self.time.baselines_until,
        )  # fmt: skip
        self.time = replace(self.time, latency_s=self.baselines.float32.latency_ms / 1e3)
        if JUDGED not in self.journal:
            self.journal[JUDGED] = self.evaluator.judge.count
        for refusal in self.baselines.refusals:
            self.progress.say(f"int8 does not make this network faster ({refusal.reason})")

    def _untrained(self) -> list[Candidate]:
        self.progress.say("Without training: exact edits, int8, both, a smaller input")
        asked = self._asked()
        untrained = Untrained(
            asked, asked is self.graph, self.baselines, self.budget, self.calibration, self.evaluator.accuracy,
            self._accuracy_at, self.work, self.journal, self.progress, self.time.untrained_until(),
        )  # fmt: skip
        found = untrained.candidates()
        for each in found:
            self.progress.say(f"  {each.sentence}")
        return found

    def _proof(self, candidates: Sequence[Candidate]) -> SlimResult:
        best = max(candidates, key=lambda each: each.rank)
        self.progress.say(f"Proof: the deployed files side by side ({best.form})")
        started, places = self.baselines.for_deployment(best.deployment), self._places(best.deployment, self.time.ends)
        proven = prove(self.graph, started, best, places, self.out, self.journal)
        forms, told = [each.told(each is best) for each in candidates], self.evaluator.told()
        result = replace(
            proven,
            # The chosen form gets the speed-up of the proof, so that all parts of the result agree.
            forms=tuple(
                replace(each, speedup=proven.speedup, budget_met=proven.budget_met) if each.chosen else each
                for each in forms
            ),
            **{**told, "notes": (*told.get("notes", ()), *self._notes)},
        )
        original = self.baselines.float32.path
        examples = self.evaluator.examples(original, self.out / result.after.file)
        write_run(result, original, examples, self.evaluator.classes, max(0.0, self.time.ends - time.monotonic()))
        return result

    def _places(self, deployment: Deployment, until: float) -> InPlace:
        start = self.baselines.for_deployment(deployment).start
        bounded = self.budget.max_size_bytes is not None
        seconds = min(in_place.SECONDS, self._timing_s)
        return InPlace(self._asked(), start, self.calibration, deployment, self.progress, bounded, seconds, until)

    @property
    def _timing_s(self) -> float:
        return TIMING_SHARE * self.budget.time_limit_s

    def _search(self, untrained: Sequence[Candidate]) -> list[Candidate]:
        """The untrained candidates and those of some attempts; the first attempt that meets the budget ends it."""
        found = list(untrained)
        good_already = is_bounded(self.budget) and any(each.holds for each in untrained)
        if not self._has_time_to_recover(untrained):
            return found
        for number, effort in enumerate(EFFORTS):
            for candidate in self._attempts(effort, number):
                found.append(candidate)
                if candidate.holds or good_already:
                    return found
            if is_bounded(self.budget) or not self._time_for_another(number):
                break
            self.progress.say("The budget does not hold yet: trying a milder plan")
        return found

    def _has_time_to_recover(self, untrained: Sequence[Candidate]) -> bool:
        """Whether there is time for plans that need training; tells the user if it is short."""
        if "plan 0" in self.journal:
            return True
        pixels, kept = expected_shares(self.graph, untrained, self.baselines)
        leg_s = expected_leg_s(self.graph, self.evaluator.tensor(self.graph, 2), pixels, kept)
        enough = ENOUGH * leg_s <= self.time.left_s
        if not enough or leg_s > self.time.training_s:
            self._note(self.time.too_short(leg_s, self.time.training_s, enough))
        return enough

    def _note(self, text: str) -> None:
        """Show a note now, and keep it for the result."""
        self.progress.say(text)
        self.journal["notes"] = [*self._notes, text]

    @property
    def _notes(self) -> list[str]:
        return list(self.journal["notes"]) if "notes" in self.journal else []

    def _attempts(self, effort: float, number: int) -> Iterator[Candidate]:
        """The candidates of one plan: one after each leg of training, or one untrained if training is not needed or
        there is no time for it."""
        plan = self._plan(effort, number)
        student = plan.graph.copy()
        if all(each.site.needs == "nothing" for each in plan.edits):
            yield self._deployed(plan, student, f"{number}", "planned, exact", trained=False)
            return
        folder = self.work / f"{number}"
        folder.mkdir(exist_ok=True)
        until = self.time.training_until
        recovery = Recovery(
            self.graph, student, plan, self.folder, self.budget, self.seed, self.progress, folder,
            large_teacher=self._sees_more(student.input_size),
        )  # fmt: skip
        if not self._can_train(recovery, number):
            recovery.recalibrate()
            yield self._deployed(plan, student, f"{number}", "planned, not trained", trained=False)
            return
        self.progress.say("Recover: new blocks mimic the old ones, then the whole network is distilled")
        steps = self._learnt(f"mimicked {number}", student, partial(recovery.mimic_blocks, until))
        for leg in range(LEGS if is_bounded(self.budget) else 1):
            if leg and time.monotonic() >= until:
                break
            steps += self._learnt(f"distilled {number}.{leg}", student, partial(recovery.distil_whole, until, leg))
            form = f"trained, plan {number + 1}, leg {leg + 1}" if steps else "planned, not trained"
            candidate = self._deployed(plan, student, f"{number}.{leg}", form, steps > 0)
            yield candidate
            if time.monotonic() < until and self._rounding_costs(candidate):
                yield from self._trained_in_8_bits(candidate, (until - time.monotonic()) / 2, f"{number}.{leg}")

    def _can_train(self, recovery: Recovery, number: int) -> bool:
        """Whether there is time for a worthwhile part of the training, judged by timed training steps."""
        if f"mimicked {number}" in self.journal:
            return True
        leg_s, left_s = recovery.leg_s(), self.time.left_s
        enough = ENOUGH * leg_s <= left_s
        if not enough:
            self._note(self.time.too_short(leg_s, left_s, enough))
        return enough

    def _learnt(self, phase: str, student: Graph, learn: Callable[[], int]) -> int:
        """Number of steps of a phase of training; a resumed run does not repeat a finished phase."""
        steps = f"steps {phase}"

        def counted() -> None:
            self.journal[steps] = learn()

        self.journal.trained(phase, student.module, counted)
        return int(self.journal[steps])

    def _sees_more(self, size: tuple[int, int]) -> bool:
        """Whether the original is more accurate at its own input size than at `size` (height, width)."""
        if size == self.graph.input_size:
            return False
        reduced = edit.at_input_size(self.graph, size)
        here, there = (self.evaluator.graph_accuracy(graph, SIZE_IMAGES) for graph in (self.graph, reduced))
        return here > there

    def _deployed(self, plan: Plan, student: Graph, name: str, form: str, trained: bool) -> Candidate:
        """The network with the plan's rewrites, written to files, timed and evaluated."""
        graph = student
        for each in plan.rewrites:
            graph = named(each.site.technique).apply(graph, each.site)
        float_path, path = self._paths(name)
        deployed.write_float(graph, float_path)
        path = deployed.write_deployed(graph, path, self.calibration, self.baselines.deployment)
        # Copy the student, as its training continues.
        return self._candidate(plan, student.copy(), graph.copy(), float_path, path, form, trained)

    def _paths(self, name: str) -> tuple[Path, Path]:
        """Paths of a student's float file and of its deployed file."""
        return self.work / deployed.float_name(name), self.work / f"{name}{registry.known(self.budget.runtime).suffix}"

    def _rounding_costs(self, candidate: Candidate) -> bool:
        """Whether the same network in float32 is clearly more accurate than its int8 file."""
        if self.baselines.deployment.precision != "int8":
            return False
        real = replace(candidate, accuracy=self.evaluator.accuracy(candidate.float_path))
        return candidate.drop - real.drop >= ROUNDING_COSTS

    def _trained_in_8_bits(self, candidate: Candidate, seconds: float, name: str) -> Iterator[Candidate]:
        """The candidate after quantisation-aware training with the original as teacher; none if it is unsupported."""
        self.progress.say("Quantise: int8 costs accuracy, so the network is trained in int8")
        with_labels = self.budget.allows("labels") and self.folder.train.masks is not None
        size = candidate.graph.input_size
        teacher = self.graph if self._sees_more(size) else edit.at_input_size(self.graph, size)
        try:
            training = qat.QuantisationAwareTraining(
                candidate.graph, self.folder, with_labels, self.seed, self.progress, teacher=teacher
            )
        except Unsupported as error:
            self.progress.say(f"  {error}")
            return
        learn = partial(training.train, qat.STEPS, seconds)
        self.journal.trained(f"trained in 8 bits {name}", training.network, learn)
        float_path, path = self._paths(f"{name}_8_bits")
        training.write(float_path, path)
        form = f"{candidate.form}, in 8 bits"
        yield self._candidate(candidate.plan, training.graph, training.graph, float_path, path, form, trained=True)

    def _candidate(
        self, plan: Plan, student: Graph, graph: Graph, float_path: Path, path: Path, form: str, trained: bool
    ) -> Candidate:
        """A candidate for the written files, timed interleaved with the original and evaluated."""
        base, mine = benchmark.time_files([self.baselines.float32.path, path])
        candidate = Candidate(
            plan,
            student,
            graph,
            float_path,
            path,
            accuracy=self.evaluator.accuracy(path),
            speedup=benchmark.ratio(base, mine),
            original_accuracy=self.baselines.float32.accuracy,
            budget=self.budget,
            deployment=self.baselines.deployment,
            form=form,
            trained=trained,
        )
        self.progress.say(f"  {candidate.sentence}")
        return candidate

    def _plan(self, effort: float, number: int) -> Plan:
        name = f"plan {number}"
        if name in self.journal:
            return Plan.replayed(self._asked(), self.journal[name])
        self.progress.say("Plan: every candidate edit timed before and after")
        until = self.time.planning_until()
        planned = self._planned(effort, until - self._timing_s)  # the rest: timing every edit in place
        plan = self._places(self.baselines.deployment, until).paying(planned)
        for each in plan.edits:
            self.progress.say(f"  {each.site.technique}, {each.site.layers[0]}: {each.site.variant}")
        self.journal[name] = plan.as_dict()
        return plan

    def _planned(self, effort: float, until: float) -> Plan:
        target = Target.of(self.budget, self.baselines.float32.path)
        evidence = Evidence(
            images=lambda graph: self.evaluator.tensor(graph, PLANNING_IMAGES),
            accuracy=self._accuracy_at,
            importance=lambda graph: importance.measured_on(
                self.folder, graph, self.time.some(IMPORTANCE_IMAGES), self.seed, self.progress
            ),
        )
        planner = Planner(self.graph, self.budget, self.baselines.deployment, target, evidence, self.progress, until)
        return planner.plan(effort)

    def _accuracy_at(self, graph: Graph) -> float:
        """Accuracy of the untrained network at its input size; measured once for all plans and resumed runs."""
        height, width = graph.input_size
        name = f"accuracy at {height}x{width}"
        if name not in self.journal:
            self.journal[name] = self.evaluator.graph_accuracy(graph, self.time.some(SIZE_IMAGES))
        return float(self.journal[name])

    def _asked(self) -> Graph:
        return with_output(self.graph, self.budget.head or self.graph.description.output_kind)

    def _time_for_another(self, number: int) -> bool:
        next_ends = self.journal.seconds * (number + 2) / (number + 1)
        return number + 1 < len(EFFORTS) and next_ends < self.budget.time_limit_s
