"""`slimseg quantize`: writes a file for every quantisation scheme, runs, times and evaluates it, and keeps the best.

    model ──> float file (the user's own `.tflite` as it is) ──> calibration of ranges on the user's images
        ├─ for each scheme: write ──> does it run? ──> interleaved timing ──> accuracy ────────┐
        ├─ if int8 loses accuracy: correct the network (quantisation/corrections.py) ──────────┤──> best for the budget
        └─ if it still does: worst layers in float32 (quantisation/mixed_precision.py) ────────┘

A scheme that cannot be applied gets a row of the table with the reason. Files slower than the original are marked so.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from slimseg.commands.evaluate import Judge, class_count_of
from slimseg.deployment import DEFAULT_RUNTIME, Deployment
from slimseg.disk import atomic, scratch
from slimseg.errors import DataError, OutputError, SlimsegError, UserError
from slimseg.graph.description import Description
from slimseg.graph.graph import Graph
from slimseg.pace import at_latency
from slimseg.planning.choosing.budget import Budget
from slimseg.planning.running import deploy
from slimseg.progress import Progress, Silent
from slimseg.quantisation import calibration, corrections, mixed_precision, schemes, trained
from slimseg.quantisation.bench import Bench, Trial
from slimseg.quantisation.schemes import AUTO, Attempt
from slimseg.quantisation.source import Source, open_source
from slimseg.quantisation.timing import SLOW
from slimseg.results import BudgetCheck, LayerSensitivity, QuantisationResult, QuantisedFile
from slimseg.runtimes import calm, child, deployed, registry
from slimseg.runtimes.quantiser import Ends
from slimseg.runtimes.runtime import Runtime
from slimseg.stopping import keeping
from slimseg.training import memory
from slimseg.training.data import Folder, check_split, open_folder, say_notes

CALIBRATION_IMAGES = 100
PROFILED_RUNS = 15
PATIENCE_MS = 60_000.0  # longest time to measure the accuracy of a file so slow that it will not be kept


def quantize(
    model: Graph | str | Path,
    *,
    out: str | Path,
    images: str | Path | Folder | None = None,
    scheme: str = AUTO,
    io: Ends = "float32",
    ranges: str = AUTO,
    correct: corrections.Correct = "auto",
    keep_float: str | Sequence[str] = AUTO,
    sensitivity: bool = False,
    train_s: float = 0.0,
    budget: Budget | None = None,
    calibration_images: int = CALIBRATION_IMAGES,
    description: Description | None = None,
    threads: int = 1,
    runtime: str | None = None,
    progress: Progress | None = None,
) -> QuantisationResult:
    """Quantise a trained network with several schemes, measure each resulting file, and keep the best.

    Args:
        model: an opened Graph, or the path of any file that `load` opens. A `.tflite` is quantised as it is and need
            not become a Graph, so it may have operators outside slimseg's vocabulary.
        out: the file to write, with the suffix of the runtime; replaced in one step at the end.
        images: a folder with train/val x images/masks, or with images only, or the result of `open_folder`. Ranges are
            calibrated on train, and accuracy is measured on val. None: only schemes without ranges, and no accuracy.
        scheme: "float16", "dynamic", "weight-only", "int8", "int16x8", or "auto" for the best of all.
        io: type of the file's input and output: "float32"; "int8"; or "image", RGB bytes in and int8 out.
        ranges: "mean", "minmax", "percentile", "mse", or "auto" for the best of all (on val, like the scheme).
        correct: correction of the network before int8: "none", "equalise", "bias", "both", or "auto" for the one that
            helps most, if int8 loses more accuracy than rounding explains.
        keep_float: layers that stay in float32 in an int8 file: their names (a list, or separated by commas), "none",
            or "auto" for as few of the most sensitive layers as needed, if int8 loses more than the budget allows.
        sensitivity: measure how sensitive each layer is to 8 bits, even if it is not needed.
        train_s: seconds of quantisation-aware training, which starts from the best int8 file; 0: no training.
        budget: bounds on the drop, the size and the speed.
        calibration_images: largest number of images for calibration, spread over the folder.
        description: preprocessing and kind of output of a `.tflite` that does not contain them.
        threads: CPU threads of the runtime.
        runtime: the runtime to quantise for, by default `deployment.DEFAULT_RUNTIME`. Another one gets its own files
            with the same ranges, for the schemes that it has.
        progress: where to show progress; silent by default.

    Returns:
        The result. If the budget could not be met, it is the file that loses least, with the bounds that it misses.

    Raises:
        UserError: an argument cannot be used; the message says why, and nothing is written.
        RuntimeFailure, Unsupported: no scheme gave a file that runs.
    """
    its = registry.named(runtime or DEFAULT_RUNTIME)
    if not (its is registry.DEFAULT or its.carries):
        raise UserError(f"`runtime` {its.name}: slimseg does not quantise for {its.brand}")
    attempts = schemes.attempts(scheme, ranges)
    corrections.check(correct, {attempt.scheme for attempt in attempts})
    kept = mixed_precision.wanted(keep_float, {attempt.scheme for attempt in attempts})
    trained.check(train_s, images, {attempt.scheme for attempt in attempts})
    _check_place(Path(out), model, its)
    if images is None and all(attempt.ranges for attempt in attempts):
        raise DataError(f"`scheme` {scheme} needs images for the ranges of activations: give `images`")
    name = model.name if isinstance(model, Graph) else str(model)
    folder, progress = None if images is None else open_folder(images), progress or Silent()
    memory.keep_freed()  # layers are run in torch one by one
    untouched = keeping(lambda: f"{out} was not written: the same command starts over.")
    with untouched, scratch.folder() as work, _named_as_given(str(work), name):
        source = open_source(model, description, io, work, its)
        bench = _bench(source, folder, io, calibration_images, threads, progress, work)
        course = trained.Course(folder, train_s) if folder is not None and train_s else None
        notes = () if folder is None else (*folder.notes, *_doubts(source, bench, folder))
        job = _Job(bench, budget or Budget(), correct, kept, sensitivity, course, notes)
        return job.run(attempts, Path(out))


def _check_place(out: Path, model: Graph | str | Path, its: Runtime) -> None:
    """Check that `out` can be written, before minutes are spent on quantising.

    Raises:
        OutputError: `out` is the model itself, a folder, no file of the runtime, or in a folder that cannot be written.
    """
    if out.suffix != its.suffix:
        raise OutputError(f"{out} does not end in {its.suffix}, as the quantised file must: give it that ending")
    if out.is_dir():
        raise OutputError(f"{out} is a folder: give the name of a file")
    if not out.parent.is_dir():
        raise OutputError(f"{out} cannot be written: the folder {out.parent} does not exist, so create it first")
    if not os.access(out.parent, os.W_OK):
        raise OutputError(f"{out} cannot be written: you have no permission to write to {out.parent}")
    own = model.source if isinstance(model, Graph) else Path(model)
    if out.exists() and own is not None and Path(own).exists() and out.samefile(own):
        raise OutputError(f"{out} is the model itself: give another name for the quantised file")


@contextmanager
def _named_as_given(work: str, name: str) -> Iterator[None]:
    """Replace the names of temporary files in error messages by the name of the user's model."""
    try:
        yield
    except SlimsegError as error:
        if work not in str(error):
            raise
        message = str(error)
        for own in ("original.tflite", "float32.tflite", "of_bytes.tflite"):
            message = message.replace(str(Path(work) / own), name)
        raise type(error)(message.replace(f"{work}{os.sep}", "")) from error


def _bench(
    source: Source, folder: Folder | None, io: Ends, count: int, threads: int, progress: Progress, work: Path
) -> Bench:
    """The bench on which schemes are tried, with calibration images and a judge if there is a folder.

    Raises:
        DataError: an image or mask cannot be used.
    """
    if folder is None:
        return Bench(source, None, None, io, threads, progress, work)
    say_notes(folder, progress)
    pipeline = source.pipeline
    judge = _judge(source, folder, threads, progress)
    images = calibration.choose(folder.train.images, count, pipeline)
    return Bench(source, images, judge, io, threads, progress, work)


def _doubts(source: Source, bench: Bench, folder: Folder) -> tuple[str, ...]:
    """Doubts whether the original suits the images, in sentences; found before the schemes are tried."""
    return () if bench.judge is None else bench.judge.doubts(source.original, _names(source, folder))


def _names(source: Source, folder: Folder) -> tuple[str, ...]:
    return source.description.classes or folder.classes


def _judge(source: Source, folder: Folder, threads: int, progress: Progress) -> Judge:
    described = source.description
    names = _names(source, folder)
    count = class_count_of(source.original, described, names) if folder.labelled else max(2, len(names))
    for split in (folder.train, folder.val):
        check_split(split, count)
    return Judge(folder.val, described, count, threads, progress)


class _Job:
    """One call of `quantize`: adds to `trials` first the schemes, then corrections, mixed precision and training."""

    def __init__(
        self,
        bench: Bench,
        budget: Budget,
        correct: corrections.Correct,
        kept: str | tuple[str, ...],
        sensitivity: bool,
        course: trained.Course | None,
        notes: Sequence[str],
    ) -> None:
        self.started = time.monotonic()
        self.bench, self.budget = bench, budget
        self.correct, self.kept, self.sensitivity, self.course = correct, kept, sensitivity, course
        self.trials: list[Trial] = []
        self.sensitivities: tuple[LayerSensitivity, ...] = ()
        self.notes = list(notes)

    def run(self, attempts: Sequence[Attempt], out: Path) -> QuantisationResult:
        if isinstance(self.kept, tuple):
            mixed_precision.check_names(self.kept, self.bench.source)
        self._note_images()
        self._try_schemes(attempts)
        if self._best_int8() is not None:
            self._try_corrections()
            self._try_mixed_precision()
            self._try_training()
        return self._result(out)

    def _note_images(self) -> None:
        left_out = () if self.bench.images is None else self.bench.images.left_out
        if left_out:
            self.notes.append(
                f"{len(left_out)} images of a single colour were left out of calibration, for example {left_out[0]}"
            )

    def _try_schemes(self, attempts: Sequence[Attempt]) -> None:
        alone = len({attempt.scheme for attempt in attempts}) == 1
        made = self._made(attempts, alone)
        self.bench.progress.say("Timing the original and the quantised files side by side")
        times = self.bench.times([trial.path for trial in made if trial.path is not None])
        self.baseline = self.bench.original(times)
        for trial in made:
            timed = replace(trial, time=times.get(trial.path) if trial.path else None)
            if not alone and self._is_hopeless(timed.row):
                reason = f"{1 / timed.row.speedup:.0f}x slower than {self.baseline.scheme}: accuracy not measured"
                self.trials.append(replace(timed, reason=reason))
            else:
                self.trials.append(self.bench.judged(timed))

    def _made(self, attempts: Sequence[Attempt], alone: bool) -> list[Trial]:
        """A file for each attempt, or the reason why it cannot be made.

        Raises:
            UserError: the only scheme that the user wants cannot be applied, or none of several.
            SlimsegError: no attempt gave a file; the error of the first failure.
        """
        bench, has_images = self.bench, self.bench.images is not None
        obstacles = {attempt: attempt.obstacle(bench.io, has_images) for attempt in attempts}
        if alone and (obstacle := obstacles[attempts[0]]):
            raise UserError(f"`scheme` {attempts[0].scheme} {obstacle}")
        methods = {attempt.ranges for attempt in attempts if attempt.ranges and not obstacles[attempt]}
        base = bench.base(bench.source.quantised_from, methods, is_ours=bench.source.written_from is not None)
        made = [
            Trial(attempt, base, reason=obstacles[attempt]) if obstacles[attempt] else bench.tried(attempt, base)
            for attempt in bench.progress.track(attempts, "writing and trying every scheme")
        ]
        if not any(trial.path for trial in made):
            failures = (trial.failure for trial in made if trial.failure)
            raise next(
                failures,
                UserError("no scheme can be applied without images and with this `io`: give `images`, or `io` float"),
            )
        return made

    def _is_hopeless(self, row: QuantisedFile) -> bool:
        """Whether a file is much slower than the original, and measuring its accuracy would take over a minute."""
        judge = self.bench.judge
        slow = row.was_made and row.speedup * SLOW < 1
        return slow and judge is not None and row.latency_ms * judge.count > PATIENCE_MS

    def _best_int8(self) -> Trial | None:
        """The int8 trial that loses least; None if no int8 file was made."""
        made = [trial for trial in self.trials if trial.attempt.scheme == "int8" and trial.path is not None]
        return min(made, key=lambda trial: corrections.loss(self.baseline, trial), default=None)

    def _try_corrections(self) -> None:
        best = self._best_int8()
        assert best is not None
        if self.correct == "none" or (self.correct == AUTO and corrections.is_enough(self.baseline, best.row)):
            return
        try:
            graph = self.bench.source.graph()
            self.trials += corrections.tried(self.bench, graph, best.attempt, self.correct, self.baseline)
        except SlimsegError as error:
            if self.correct != AUTO:
                raise UserError(f"`correct` {self.correct} cannot be applied: {error}") from error
            self.notes.append(f"int8 was not corrected: {error}")

    def _try_mixed_precision(self) -> None:
        bench, best = self.bench, self._best_int8()
        assert best is not None
        if isinstance(self.kept, tuple):
            self.trials += mixed_precision.by_hand(bench, best, self.kept)
        needed = self.kept == AUTO and corrections.loss(self.baseline, best) > self.budget.max_drop
        if not (needed or self.sensitivity):
            return
        try:
            base = mixed_precision.ours(bench, best)
            self.sensitivities = mixed_precision.sensitivities(bench, base, best.attempt)
        except SlimsegError as error:
            self.notes.append(f"the sensitivity of single layers was not measured: {error}")
            return
        if needed:
            ranked, most = self.sensitivities, self.budget.max_drop
            self.trials += mixed_precision.tried(bench, base, best, ranked, self.baseline, most)

    def _try_training(self) -> None:
        if self.course is None:
            return
        whole = [trial for trial in self.trials if trial.attempt.scheme == "int8" and not trial.attempt.keep_float]
        best = min(whole, key=lambda trial: corrections.loss(self.baseline, trial))
        try:
            self.trials += trained.tried(self.bench, self.course, self.bench.source.graph(), best)
        except SlimsegError as error:
            raise UserError(f"the network cannot be trained in int8, which `train_s` asks for: {error}") from error

    def _result(self, out: Path) -> QuantisationResult:
        """The result; writes the best file to `out`."""
        bench, baseline = self.bench, self.baseline
        rows = [trial.row for trial in self.trials]
        chosen = schemes.choose(baseline, rows, self.budget)
        path = self.trials[rows.index(chosen)].path
        assert path is not None
        its = registry.of(path)
        profile = its.profile(path, bench.threads, PROFILED_RUNS, child.shared(), with_roofs=False)
        disturbed = calm.of_all(trial.time.seen for trial in self.trials if trial.time is not None)
        disturbed = calm.together(disturbed, profile.disturbed)
        profile = at_latency(profile, chosen.latency_ms)
        atomic.write(path.read_bytes(), out)
        return QuantisationResult(
            model=bench.source.name,
            file=str(out),
            io=bench.io,
            baseline=baseline,
            candidates=tuple(rows),
            chosen=chosen,
            verdict=schemes.verdict(baseline, rows, chosen),
            budget_met=schemes.holds(baseline, chosen, self.budget),
            budget=self._checks(chosen),
            calibration_images=len(bench.images or ()) if any(row.ranges for row in rows) else 0,
            validation_images=0 if bench.judge is None else bench.judge.count,
            fallbacks=profile.fallbacks,
            islands=profile.islands,
            seconds=time.monotonic() - self.started,
            host=deployed.host_name(Deployment(bench.source.its.name, "int8")),
            notes=tuple(self.notes),
            sensitivities=self.sensitivities,
            disturbed=disturbed,
        )

    def _checks(self, chosen: QuantisedFile) -> tuple[BudgetCheck, ...]:
        checks = deploy.size_and_speed(self.budget, chosen.size_bytes, chosen.speedup)
        lost = schemes.drop(self.baseline, chosen)
        if lost is None:
            return checks
        labelled = self.baseline.miou is not None
        wanted = f"at most {self.budget.max_drop:g} {'points' if labelled else 'percent'}"
        name = "max_drop" if labelled else "changed_pixels"
        return (
            BudgetCheck(name, wanted, deploy.points(lost, self.budget.max_drop), lost <= self.budget.max_drop),
            *checks,
        )
