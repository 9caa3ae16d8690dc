"""`slimseg quantize`: every post-training scheme as a file that is run, timed and judged; the best one is kept.

    model ──> float32 file (the user's own `.tflite` as it is) ──> ranges on the user's images
        └─ for each scheme: write ──> does it run? ──> time beside float32 ──> accuracy ──> the best for the budget

A scheme that cannot be had is a row of the table with its reason. What is slower than float32 is said to be.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from slimseg.errors import DataError, OutputError, RuntimeFailure, SlimsegError, UserError
from slimseg.evaluate import Judge, class_count_of
from slimseg.graph.description import Description
from slimseg.graph.graph import Graph
from slimseg.planning import deploy
from slimseg.planning.budget import Budget
from slimseg.progress import Progress, Silent
from slimseg.quantisation import calibration, schemes
from slimseg.quantisation.calibration import Observed
from slimseg.quantisation.schemes import AUTO, Attempt
from slimseg.quantisation.source import Source, open_source
from slimseg.quantisation.timing import SLOW, Beside, beside_float
from slimseg.results import BudgetCheck, QuantisationResult, QuantisedFile
from slimseg.runtimes import child
from slimseg.runtimes.litert import benchmark, file, profiler, quantizer, runnable
from slimseg.runtimes.litert.quantizer import Io
from slimseg.training.data import Folder, check_split, open_folder

CALIBRATION_IMAGES = 100
PROFILED_RUNS = 15
PATIENCE_MS = 60_000.0  # with the accuracy of a file that is not going to be kept


def quantize(
    model: Graph | str | Path,
    out: str | Path,
    data: str | Path | None = None,
    scheme: str = AUTO,
    io: Io = "float32",
    ranges: str = AUTO,
    budget: Budget | None = None,
    calibration_images: int = CALIBRATION_IMAGES,
    description: Description | None = None,
    threads: int = 1,
    progress: Progress | None = None,
) -> QuantisationResult:
    """Quantise a trained network without training it, measure every file that comes of it, and keep the best.

    Args:
        model: an opened Graph, or the path of any file that `load` opens. A `.tflite` is quantised as it is and need
            not become a Graph: operators that slimseg does not know are no obstacle.
        out: the `.tflite` to write, replaced in one step at the end.
        data: a folder with train/val x images/masks, or images alone: ranges are measured on images of train, accuracy
            on val. None: only schemes without ranges, and no accuracy.
        scheme: "float16", "dynamic", "weight-only", "int8", "int16x8", or "auto" for the best of all.
        io: what the file takes and gives: "float32"; "int8"; or "image", RGB bytes in and int8 out.
        ranges: "mean", "minmax", "percentile", "mse", or "auto" for the best of all (on val, like the scheme).
        budget: bounds on the drop, the size and the speed.
        calibration_images: at most so many, spread over the folder.
        description: preprocessing and kind of output of a `.tflite` that does not say so itself.

    Returns:
        The result, also when the budget could not be met: then the file that loses least, and what it misses.

    Raises:
        UserError: what the user gave cannot be used, in one sentence; nothing is written.
        RuntimeFailure, Unsupported: no scheme gave a file that runs.
    """
    attempts = schemes.attempts(scheme, ranges)
    _check_place(Path(out), model)
    if data is None and all(attempt.ranges for attempt in attempts):
        raise DataError(f"--scheme {scheme} needs images for the ranges of activations: give --data")
    name = model.name if isinstance(model, Graph) else str(model)
    with tempfile.TemporaryDirectory(prefix="slimseg-") as scratch, _named_as_given(scratch, name):
        source = open_source(model, description, io, Path(scratch))
        job = _Job(source, data, io, budget or Budget(), calibration_images, threads, progress or Silent(), scratch)
        return job.run(attempts, Path(out))


def _check_place(out: Path, model: Graph | str | Path) -> None:
    """Refuse before minutes are spent.

    Raises:
        OutputError: `out` is the model itself, a folder, no `.tflite`, or in a place that cannot be written.
    """
    if out.suffix != ".tflite":
        raise OutputError(f"{out} would be a .tflite file: give it that ending")
    if out.is_dir():
        raise OutputError(f"{out} is a folder: give the name of a file")
    if not out.parent.is_dir():
        raise OutputError(f"{out} cannot be written: there is no folder {out.parent}")
    if not os.access(out.parent, os.W_OK):
        raise OutputError(f"{out} cannot be written: {out.parent} does not allow it")
    own = model.source if isinstance(model, Graph) else Path(model)
    if out.exists() and own is not None and Path(own).exists() and out.samefile(own):
        raise OutputError(f"{out} is the model itself: give another name for the quantised file")


@contextmanager
def _named_as_given(scratch: str, name: str) -> Iterator[None]:
    """Errors speak of the model that the user gave, not of the files that are made of it."""
    try:
        yield
    except SlimsegError as error:
        if scratch not in str(error):
            raise
        message = str(error)
        for own in ("float32.tflite", "of_bytes.tflite"):
            message = message.replace(str(Path(scratch) / own), name)
        raise type(error)(message.replace(f"{scratch}{os.sep}", "")) from error


class _Job:
    """One call of `quantize`."""

    def __init__(
        self,
        source: Source,
        data: str | Path | None,
        io: Io,
        budget: Budget,
        images: int,
        threads: int,
        progress: Progress,
        scratch: str,
    ) -> None:
        self.started = time.monotonic()
        self.source, self.io, self.budget = source, io, budget
        self.threads, self.progress, self.scratch = threads, progress, Path(scratch)
        self.folder: Folder | None = None if data is None else open_folder(data)
        self.calibration: calibration.Images | None = None
        self.judge: Judge | None = None
        if self.folder is not None:
            pipeline = source.pipeline
            self.judge = self._judge(self.folder)
            self.calibration = calibration.choose(self.folder.train.images, images, pipeline)

    def _judge(self, folder: Folder) -> Judge:
        """Raises: DataError where an image or mask cannot be used."""
        described = self.source.description
        names = described.classes or folder.classes
        count = class_count_of(self.source.original, described, names) if folder.labelled else max(2, len(names))
        for split in (folder.train, folder.val):
            check_split(split, count)
        return Judge(folder.val, described, count, self.threads, self.progress)

    def run(self, attempts: Sequence[Attempt], out: Path) -> QuantisationResult:
        self.alone = len({attempt.scheme for attempt in attempts}) == 1
        written = self._written(attempts, self._observed(attempts))
        baseline, *candidates = self._measured(written)
        chosen = schemes.choose(baseline, candidates, self.budget)
        path = next(value for key, value in written.items() if (key.scheme, key.ranges or "") == _key(chosen))
        assert isinstance(path, Path)
        profile = profiler.profile(path, threads=self.threads, runs=PROFILED_RUNS, within=child.shared())
        file.save(path.read_bytes(), out)
        return QuantisationResult(
            model=self.source.name,
            file=str(out),
            io=self.io,
            baseline=baseline,
            candidates=tuple(candidates),
            chosen=chosen,
            verdict=schemes.verdict(baseline, candidates, chosen),
            budget_met=schemes.holds(baseline, chosen, self.budget),
            budget=self._checks(baseline, chosen),
            calibration_images=0 if self.calibration is None else len(self.calibration),
            validation_images=0 if self.folder is None else len(self.folder.val.images),
            fallbacks=profile.fallbacks,
            islands=profile.islands,
            seconds=time.monotonic() - self.started,
            host=deploy.host_name(),
            notes=self._notes(),
        )

    def _observed(self, attempts: Sequence[Attempt]) -> Observed | RuntimeFailure | None:
        """Activations on the images, measured once for all ways to find ranges."""
        methods = {each.ranges for each in attempts if each.ranges and not each.obstacle(self.io, True)}
        if self.calibration is None or not methods:
            return None
        path = self.source.quantised_from
        try:
            return calibration.observe(path, self.calibration, methods, self.threads, self.progress)
        except RuntimeFailure as error:
            return error  # schemes without ranges may still go

    def _written(
        self, attempts: Sequence[Attempt], observed: Observed | RuntimeFailure | None
    ) -> Mapping[Attempt, Path | str]:
        """The files, or why one cannot be had. What was asked for alone fails as an error."""
        result: dict[Attempt, Path | str] = {}
        failures: list[SlimsegError] = []
        for attempt in self.progress.track(attempts, "writing and trying every scheme"):
            obstacle = attempt.obstacle(self.io, self.calibration is not None)
            if obstacle and self.alone:
                raise UserError(f"--scheme {attempt.scheme} {obstacle}")
            try:
                result[attempt] = obstacle or self._write(attempt, observed)
            except OutputError:
                raise
            except SlimsegError as error:
                failures.append(error)
                result[attempt] = str(error).replace(f"{self.scratch}{os.sep}", "")
        if not any(isinstance(each, Path) for each in result.values()):
            raise failures[0] if failures else UserError("none of the schemes can be had: give --data, or --io float")
        return result

    def _write(self, attempt: Attempt, observed: Observed | RuntimeFailure | None) -> Path:
        """A file that was seen to run."""
        path = self.scratch / f"{attempt.scheme}_{attempt.ranges or 'plain'}.tflite"
        ranges = None
        if attempt.ranges is not None:
            if not isinstance(observed, Observed):
                raise observed or AssertionError("ranges without images")
            ranges = observed.ranges(attempt.ranges)
        quantizer.quantize(self.source.quantised_from, path, attempt.scheme, ranges, self.io)
        benchmark.time_files([path], self.threads, rounds=1)
        return path

    def _measured(self, written: Mapping[Attempt, Path | str]) -> list[QuantisedFile]:
        """float32, then every attempt."""
        self.progress.say("Timing float32 and the quantised files side by side")
        original = self.source.original
        try:
            times = beside_float(original, [each for each in written.values() if isinstance(each, Path)], self.threads)
        except RuntimeFailure as error:
            raise runnable.blamed(error) from error
        rows = [self._judged(_row("float32", "", original, times[original]), original)]
        for attempt, path in written.items():
            if isinstance(path, str):
                rows.append(QuantisedFile(attempt.scheme, attempt.ranges or "", reason=path))
                continue
            row = _row(attempt.scheme, attempt.ranges or "", path, times[path])
            if self.judge is not None and not self.alone and self._is_hopeless(row, self.judge):
                rows.append(replace(row, reason=f"{1 / row.speedup:.0f}x slower than float32: accuracy not measured"))
            else:
                rows.append(self._judged(row, path))
        return rows

    def _is_hopeless(self, row: QuantisedFile, judge: Judge) -> bool:
        """Much slower than float32, and so slow that its accuracy would take longer than all else."""
        return row.speedup * SLOW < 1 and row.latency_ms * len(judge.split.images) > PATIENCE_MS

    def _judged(self, row: QuantisedFile, path: Path) -> QuantisedFile:
        if self.judge is None:
            return row
        accuracy = self.judge.accuracy(path)
        return replace(row, miou=accuracy.miou, agreement=accuracy.agreement)

    def _checks(self, baseline: QuantisedFile, chosen: QuantisedFile) -> tuple[BudgetCheck, ...]:
        checks = deploy.size_and_speed(self.budget, chosen.size_bytes, chosen.speedup)
        lost = schemes.drop(baseline, chosen)
        if lost is None:
            return checks
        labelled = baseline.miou is not None
        wanted = f"at most {self.budget.max_drop:g} {'points' if labelled else 'percent'}"
        name = "max_drop" if labelled else "changed_pixels"
        return (BudgetCheck(name, wanted, f"{lost:.2f}", lost <= self.budget.max_drop), *checks)

    def _notes(self) -> tuple[str, ...]:
        left_out = () if self.calibration is None else self.calibration.left_out
        if not left_out:
            return ()
        return (f"{len(left_out)} images of a single colour were left out of calibration, {left_out[0]} for one",)


def _row(scheme: str, ranges: str, path: Path, time: Beside) -> QuantisedFile:
    return QuantisedFile(scheme, ranges, time.latency_ms, time.speedup, path.stat().st_size)


def _key(row: QuantisedFile) -> tuple[str, str]:
    return row.scheme, row.ranges
