"""What `slim` makes of a network, and how it came about."""

from __future__ import annotations

from dataclasses import dataclass

from slimseg import ratios
from slimseg.deployment import USUAL, Deployment
from slimseg.results.diagnosis import Needs, Refusal
from slimseg.results.disturbance import Disturbance
from slimseg.results.export import ExportResult
from slimseg.results.network import BudgetCheck, ModelSummary, SourceFile
from slimseg.results.placement import Placement
from slimseg.results.result import Result


@dataclass(frozen=True)
class AppliedEdit(Result):  # one edit in the deployed network, with its predicted and its measured saving
    technique: str
    layers: tuple[str, ...]
    needs: Needs
    predicted_saving_ms: float  # before any training, scaled to the machine's pace during the final timing
    realised_saving_ms: float  # measured in the final timing
    reason: str
    alone_saving_ms: float | None = None  # measured on its layers alone, before it was timed in the whole network
    realised_error_ms: float | None = None  # standard error of the realised saving; None if files were loaded once

    @property
    def is_measurable(self) -> bool:
        """Whether the realised saving is statistically significant; assumed where its standard error is unknown."""
        return ratios.is_measurable(self.realised_saving_ms, self.realised_error_ms)


@dataclass(frozen=True)
class DeployedForm(Result):
    """One form of a network, written to a file, timed, and evaluated as it would be deployed."""

    computed = ("precision",)

    form: str  # "original", "exact edits", "plain int8", "192x256, int8", "trained", ...
    trained: bool  # False: all weights that it keeps are the original's
    deployment: Deployment
    input_size: tuple[int, int]  # height, width
    speedup: float  # over the original in float32; the runs of both were interleaved
    size_bytes: int
    miou: float | None  # None without labels
    agreement: float | None  # agreement with the original's masks, percent of pixels
    drop: float  # points of mIoU lost; without labels, percent of pixels that changed class
    budget_met: bool
    chosen: bool

    @property
    def precision(self) -> str:
        return self.deployment.precision


@dataclass(frozen=True)
class InputSizeTrial(Result):
    """The untrained, otherwise unchanged network at one input size: one point of the accuracy curve over sizes."""

    input_size: tuple[int, int]  # height, width
    latency_ms: float  # in the deployed precision
    accuracy: float  # mIoU on some validation images; without labels, agreement with the original's masks, percent
    chosen: bool


@dataclass(frozen=True, repr=False)
class SlimResult(Result):
    """What `slimseg slim` made, beside the original; all latencies are scaled to one pace of the machine."""

    headline = ("model", "run", "speedup", "miou_before", "miou_after", "budget_met", "edits")

    computed = ("speedup", "speedup_over_int8", "end_to_end_speedup", "runtime")

    model: str
    run: str
    baseline: ModelSummary  # the original: the user's own .tflite, otherwise a float32 file written from the network
    plain_int8: ModelSummary | None  # the original, only quantised; None if not made, e.g. without images
    result: ModelSummary
    budget_met: bool
    budget: tuple[BudgetCheck, ...]
    edits: tuple[AppliedEdit, ...]
    refusals: tuple[Refusal, ...]
    seconds: float
    host: str
    max_difference: float | None = None  # exact edits only: largest difference from the original's output on the images
    input_sizes: tuple[InputSizeTrial, ...] = ()  # largest first; empty if no size was tried
    deployment: Deployment = USUAL  # runtime and precision of the deployed file; everything was timed on this runtime
    exported: ExportResult | None = None  # the files for apps, if the same command was asked to export
    forms: tuple[DeployedForm, ...] = ()  # all forms that were compared, untrained ones first
    # Where the layers of the original and of the deployed file run, on every other processor that was asked for.
    placed_before: tuple[Placement, ...] = ()
    placed_after: tuple[Placement, ...] = ()
    verdict: str = ""  # whether the budget is met, and which bounds are missed, in a sentence
    sources: tuple[SourceFile, ...] = ()  # files from which the network was opened; empty for a network in memory
    data: str = ""  # absolute path of the image folder; empty without images
    validation_images: int = 0  # number of images on which mIoU and agreement were measured
    source_check: str = ""  # how the network as opened compares with its source's own runtime, in a sentence
    notes: tuple[str, ...] = ()  # how model and images were interpreted, whether they match, where time was short
    disturbed: Disturbance | None = None

    @property
    def miou_before(self) -> float | None:
        return self.before.miou

    @property
    def miou_after(self) -> float | None:
        return self.after.miou

    @property
    def before(self) -> ModelSummary:
        """The original network: the field `baseline` under another name."""
        return self.baseline

    @property
    def after(self) -> ModelSummary:
        """The slimmed network: the field `result` under another name."""
        return self.result

    @property
    def runtime(self) -> str:
        return self.deployment.runtime

    @property
    def speedup(self) -> float:
        return ratios.speedup(self.before.latency_ms, self.after.latency_ms)

    @property
    def speedup_over_int8(self) -> float | None:
        return None if self.plain_int8 is None else ratios.speedup(self.plain_int8.latency_ms, self.after.latency_ms)

    @property
    def end_to_end_speedup(self) -> float:
        return ratios.speedup(self.before.end_to_end_ms, self.after.end_to_end_ms)
