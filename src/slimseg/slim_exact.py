"""`slimseg slim --needs nothing`: the same function, written so that the runtime is quicker with it. No data needed.

source file ──> Graph ──> exact edits in rounds, each priced on the runtime and checked on images
   │                          └─> float32 file ──> compared with the source, output by output and side by side
   └─ stays what is deployed where nothing was won
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from slimseg.diagnose import file_precision
from slimseg.evaluate import Evaluator
from slimseg.frontends import archive
from slimseg.graph.description import OutputKind
from slimseg.graph.graph import Graph
from slimseg.planning import deploy
from slimseg.planning.budget import Budget
from slimseg.planning.exact import ExactEdits, PlannedEdit, same_kind
from slimseg.planning.probes import probe_images
from slimseg.planning.whatif import Precision, calm_ms
from slimseg.progress import Progress, Silent
from slimseg.report.run import write_run
from slimseg.results import AppliedEdit, BudgetCheck, ModelSummary, Refusal, SlimResult
from slimseg.runtimes import benchmark, host, runtime
from slimseg.techniques import EXACT
from slimseg.techniques.head import with_output

TOLERANCE = 1e-4  # of probabilities; of the largest logit; of the pixels of a mask
IMAGES = 6
SECONDS_PER_FILE = 2.0  # for the proof
WRITING = "writing the file"
_Outputs = NDArray[Any]


def slim_exact(
    graph: Graph, out: Path, budget: Budget, evaluator: Evaluator | None = None, progress: Progress | None = None
) -> SlimResult:
    """Make a network faster by exact edits alone, in the new folder `out`.

    Args:
        evaluator: the user's images, if there are any; outputs are compared on them, else on drawn ones.
    """
    job = _Exact(graph, out, budget, evaluator, progress or Silent())
    return job.run()


@dataclass(frozen=True)
class _Deployed:
    """What is handed back: the graph in its rewritten form and how it came about, or the source as it was."""

    graph: Graph
    path: Path
    difference: float
    edits: tuple[PlannedEdit, ...] = ()
    refusals: tuple[Refusal, ...] = ()


class _Exact:
    """One run, step by step."""

    def __init__(
        self, graph: Graph, out: Path, budget: Budget, evaluator: Evaluator | None, progress: Progress
    ) -> None:
        self.started = time.monotonic()
        self.original = graph
        self.asked = with_output(graph, budget.head or graph.description.output_kind)
        self.out = out
        self.budget = budget
        self.evaluator = evaluator
        self.progress = progress
        self.kind = self.asked.description.output_kind
        self.images = _inputs(graph, evaluator)
        self.runtime = runtime.RUNTIMES[budget.runtime]
        own = graph.source if self.runtime is runtime.LITERT else None
        self.source = own or out / f"original_float{self.runtime.suffix}"

    def run(self) -> SlimResult:
        if self.source != self.original.source:
            self.runtime.write(self.original, self.source)
        with tempfile.TemporaryDirectory(prefix="slimseg-") as folder:
            found = self._search(Path(folder))
            result = self._measure(found, Path(folder))
        self._write(result)
        return result

    def _search(self, folder: Path) -> _Deployed:
        if self.source == self.original.source and file_precision(self.source) == "int8":
            return self._unchanged("it computes in int8, and new layers need ranges: give --data and --needs images")
        self.progress.say("Exact edits: every candidate timed before and after")
        edits = ExactEdits(self.asked, EXACT, self._precision, self.progress, self._objection).run()
        path = folder / f"model{self.runtime.suffix}"
        self.runtime.write(edits.graph, path)
        refusals = tuple(edits.refusals)
        reference = self._reference(folder)
        difference = self._changed(reference, edits.graph, folder)
        if difference > TOLERANCE:
            return self._unchanged(f"the edited file's outputs differ by {difference:.1e}", refusals)
        base, mine = benchmark.time_files([reference, path], seconds_per_file=SECONDS_PER_FILE / 2)
        if benchmark.ratio(base, mine) <= 1 and reference == self.source:
            return self._unchanged("no edit makes the whole faster than the file is already", refusals)
        return _Deployed(edits.graph, path, difference, tuple(edits.edits), refusals)

    def _reference(self, folder: Path) -> Path:
        """The file whose outputs have to be kept: the source, unless another kind of output was asked for."""
        if self.asked is self.original:
            return self.source
        path = folder / f"reference{self.runtime.suffix}"
        self.runtime.write(self.asked, path)
        return path

    def _changed(self, reference: Path, edited: Graph, folder: Path) -> float:
        """How much its outputs differ on the runtime, all weights in 32 bits: rounding is not the edits' doing."""
        before, after = (folder / f"full_{name}{self.runtime.suffix}" for name in ("before", "after"))
        if reference == self.original.source:
            before = reference
        else:
            self.runtime.write(self.asked, before, full=True)
        self.runtime.write(edited, after, full=True)
        old, new = (_predict(path, self.images, self.asked) for path in (before, after))
        return _difference(old, new, self.kind)

    def _unchanged(self, reason: str, refusals: tuple[Refusal, ...] = ()) -> _Deployed:
        self.progress.say(f"Left as it is: {reason}")
        return _Deployed(self.original, self.source, 0.0, refusals=(*refusals, Refusal("all edits", "all", reason)))

    def _objection(self, before: Graph, after: Graph) -> str | None:
        if reason := same_kind(before, after):
            return reason
        if before.shape(before.output) != after.shape(after.output):
            return f"it would give {after.shape(after.output)} instead of {before.shape(before.output)}"
        difference = _difference(_run(before, self.images), _run(after, self.images), self.kind)
        return f"outputs would differ by {difference:.1e}" if difference > TOLERANCE / 2 else None

    def _measure(self, found: _Deployed, folder: Path) -> SlimResult:
        self.progress.say("Proof: the files side by side")
        final = self.out / f"model{self.runtime.suffix}"
        runtime.copy(found.path, final)
        stages = self._stages(found, folder)
        timings = benchmark.time_files([self.source, *stages, final], seconds_per_file=SECONDS_PER_FILE)
        files = (self.source, final)
        timed = (timings[0], timings[-1])
        ends = self._end_to_end(files, timed)
        accuracies = [
            self.evaluator.accuracy(path) if self.evaluator else deploy.Accuracy(None, None) for path in files
        ]
        baseline, result = (
            deploy.summarise(*each)
            for each in zip((self.original, found.graph), files, timed, ends, accuracies, strict=True)
        )
        speedup = benchmark.ratio(*timed)
        checks = self._checks(result, speedup, found.difference)
        return SlimResult(
            model=self.original.name,
            run=str(self.out),
            baseline=baseline,
            plain_int8=None,
            result=result,
            speedup=speedup,
            speedup_over_int8=None,
            end_to_end_speedup=ends[0] / ends[1],
            budget_met=all(check.met for check in checks),
            budget=checks,
            edits=() if found.path == self.source else _applied(found.edits, timings, self._written_anew),
            refusals=found.refusals,
            seconds=time.monotonic() - self.started,
            host=deploy.host_name(self.budget.runtime),
            max_difference=found.difference,
            runtime=self.runtime.name,
        )

    @property
    def _precision(self) -> Precision:
        return "ncnn" if self.runtime is runtime.NCNN else "float32"

    @property
    def _written_anew(self) -> bool:
        """Whether the source is another file than slimseg writes of the network without an edit."""
        return self.source == self.original.source or self.asked is not self.original

    def _stages(self, found: _Deployed, folder: Path) -> list[Path]:
        """The network as slimseg writes it without an edit, and after every group of edits but the last."""
        if not found.edits:
            return []
        stages = deploy.write_stages(self.asked, found.edits, folder, (), self._precision, self.progress)[:-1]
        if not self._written_anew:
            return stages
        written = folder / f"written{self.runtime.suffix}"
        self.runtime.write(self.asked, written)
        return [written, *stages]

    def _end_to_end(self, files: Sequence[Path], timings: Sequence[benchmark.Timing]) -> tuple[float, ...]:
        if self.original.input_shape[1] != 3:  # no image goes in, so there is nothing around the network
            return tuple(timing.median_ms for timing in timings)
        size = self.original.input_size
        return host.time_end_to_end(files, size, size, description=self.original.description)

    def _checks(self, result: ModelSummary, speedup: float, difference: float) -> tuple[BudgetCheck, ...]:
        checks = [BudgetCheck("max_difference", f"at most {TOLERANCE:g}", f"{difference:.1e}", difference <= TOLERANCE)]
        return (*checks, *deploy.size_and_speed(self.budget, result.size_bytes, speedup))

    def _write(self, result: SlimResult) -> None:
        archive.write_graph(self.asked, self.out / "model.pt2")  # the plain form: that is the one to train
        final = self.out / result.result.file
        examples = self.evaluator.examples(self.source, final) if self.evaluator else ()
        classes = self.evaluator.classes if self.evaluator else self.original.description.classes
        write_run(result, self.source, examples, classes)


def _inputs(graph: Graph, evaluator: Evaluator | None) -> NDArray[np.float32]:
    """Preprocessed images (N, height, width, channels): the user's, else drawn ones."""
    if graph.input_shape[1] != 3:
        shape = (IMAGES, *graph.input_size, graph.input_shape[1])
        return np.random.default_rng(0).standard_normal(shape, np.float32)
    if evaluator is not None:
        return np.ascontiguousarray(evaluator.tensor(graph, IMAGES).permute(0, 2, 3, 1).numpy())
    pipeline = host.ImagePipeline(graph.description.preprocessing, graph.input_size)
    return np.stack([pipeline(image) for image in probe_images(graph.input_size, IMAGES - 2)])


def _run(graph: Graph, images: NDArray[np.float32]) -> _Outputs:
    with torch.inference_mode():
        return np.stack([graph(torch.from_numpy(image).permute(2, 0, 1)[None]).numpy()[0] for image in images[:2]])


def _predict(path: Path, images: NDArray[np.float32], asked: Graph) -> _Outputs:
    """A file's outputs; masks where those were asked for, also of a runtime whose files end with scores."""
    outputs = runtime.of(path).predict(path, images)
    said = runtime.of(path).read(path).description
    if asked.description.output_kind != "mask" or said is None or said.output_kind == "mask":
        return outputs
    size = asked.input_size
    return np.stack([host.to_mask(host.in_rows(each, size, path), size, said.output_kind) for each in outputs])


def _difference(old: _Outputs, new: _Outputs, kind: OutputKind) -> float:
    """Largest difference of probabilities, or of logits by the largest logit; share of a mask's pixels that differ."""
    if kind == "mask":
        return float(np.mean(old != new))
    scale = max(1.0, float(np.abs(old).max())) if kind == "logits" else 1.0
    return float(np.abs(old - new).max()) / scale


def _applied(
    edits: Sequence[PlannedEdit], timings: Sequence[benchmark.Timing], written_anew: bool
) -> tuple[AppliedEdit, ...]:
    """What was really saved: by writing the file anew, which nobody predicted, and by each group of edits.

    `timings` are the source's, that of the file without edits if it was `written_anew`, and one after each group, from
    one interleaved run.
    """
    stages_ms = [calm_ms(timing) for timing in timings]
    if not written_anew:
        return deploy.realised(edits, stages_ms)
    (saved,) = deploy.savings_ms(stages_ms[:2])
    reason = "scales and shifts folded into the layers before them, activations and pads fused"
    return (AppliedEdit(WRITING, ("all",), "nothing", 0.0, saved, reason), *deploy.realised(edits, stages_ms[1:]))
