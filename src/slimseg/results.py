"""What every command returns: frozen, with units in the names. Imports nothing of ours but `ratios` and `deployment`.

mIoU, IoU, accuracies and agreements are in percent (0-100), as the field quotes them. Times of one result are of one
pace, and what is said of them (shares, savings, speed-ups) is computed from them: it cannot contradict them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from html import escape
from typing import Any, ClassVar, Literal

from slimseg import ratios
from slimseg.deployment import USUAL, Deployment

Needs = Literal["nothing", "images", "labels"]


class Result:
    """Base of all results: one JSON shape for machines, what is computed of the fields included."""

    computed: ClassVar[tuple[str, ...]] = ()  # properties that machines get, too
    headline: ClassVar[tuple[str, ...]] = ()  # what a person sees first, at a prompt and in a notebook

    def __repr__(self) -> str:
        facts = ", ".join(f"{name}={value}" for name, value in self._facts())
        return f"{type(self).__name__}({facts}, ...)"

    def _repr_html_(self) -> str:
        """A small table for notebooks."""
        rows = "".join(f"<tr><th>{name}</th><td>{escape(value)}</td></tr>" for name, value in self._facts())
        return f"<table><caption>{type(self).__name__}</caption>{rows}</table>"

    def _facts(self) -> list[tuple[str, str]]:
        return [(name, _brief(getattr(self, name))) for name in self.headline]

    def as_dict(self) -> dict[str, Any]:
        names = [field.name for field in fields(self)]  # type: ignore[arg-type]
        return {name: _plain(getattr(self, name)) for name in (*names, *self.computed)}


def _brief(value: Any) -> str:
    """A value in a few characters; of many things how many there are."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{len(value)} of them" if isinstance(value, tuple) else repr(value)


def _plain(value: Any) -> Any:
    """Results within results as dictionaries."""
    if isinstance(value, Result):
        return value.as_dict()
    if isinstance(value, Deployment):
        return asdict(value)
    if isinstance(value, tuple):
        return tuple(_plain(each) for each in value)
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return value


@dataclass(frozen=True)
class Disturbance(Result):
    """What came between while times were taken; the runs that it hit do not count where others are left."""

    computed = ("said",)

    taken_share: float  # of the time of all timed runs: other work had the processor, 0-1; 0 too where unknown
    disturbed_share: float  # of the timed runs: lost the processor, or took over 1.2 times the quickest one, 0-1
    drift: float = 1.0  # how many times longer the same file took at one time than at another

    @property
    def said(self) -> str:
        """One sentence."""
        seen = []
        if self.taken_share >= 0.01:
            seen.append(f"other work had {self.taken_share:.0%} of the processor's time")
        if self.disturbed_share >= 0.01:
            seen.append(f"{self.disturbed_share:.0%} of the runs were interrupted or over 1.2 times the quickest")
        if self.drift > 1.2:
            seen.append(f"the network took {self.drift:.1f} times as long at one time as at another")
        return (
            f"the machine was disturbed while times were taken ({', '.join(seen)}): such runs were repeated and left "
            "out, but times may still be too long; measure again when nothing else runs"
        )


@dataclass(frozen=True)
class Statistics(Result):
    """Times of one thing over all profiled runs."""

    first_ms: float = 0.0
    average_ms: float = 0.0
    min_ms: float = 0.0
    max_ms: float = 0.0
    std_ms: float = 0.0  # of the population
    times_called: int = 0  # over all runs


@dataclass(frozen=True)
class LayerProfile(Result):
    """One operator of the file, timed by the runtime's own profiler: the mean over the runs that count."""

    computed = ("share", "gmac_per_s", "gb_per_s", "efficiency")

    name: str  # in files of slimseg the graph node that works in it: the convolution, not what is fused into it
    op: str  # TFLite operator, e.g. "CONV_2D"
    kernel: str  # what the runtime ran for it, e.g. "Convolution (NHWC, F32) IGEMM"; "" if fused into a neighbour
    latency_ms: float
    whole_ms: float  # the latency of the network
    macs: int
    params: int
    memory_bytes: int  # activations read and written, weights read
    output_shape: tuple[int, ...]  # NHWC, as in the file
    delegate: str = ""  # "XNNPACK", "built-in"; "" if nothing ran for it
    cumulative: float = 0.0  # share of this layer and all slower ones, 0-1
    least_ms: float = 0.0  # what the machine's roof allows it to take; 0 where no roof was measured
    bound: str = ""  # "compute-bound", "memory-bound", "badly served", "overhead" (too short to tell) or "fused"
    statistics: Statistics = Statistics()
    # The graph nodes that it computes, if they are more than that of its name: padding before it, batch norm and
    # activation behind it. Of an operator that does a part of a layer's work (`swish_gate`) that layer.
    covers: tuple[str, ...] = ()

    @property
    def share(self) -> float:
        """Of the network's latency, 0-1."""
        return ratios.share(self.latency_ms, self.whole_ms)

    @property
    def gmac_per_s(self) -> float:
        """Achieved."""
        return ratios.share(self.macs, self.latency_ms) / 1e6

    @property
    def gb_per_s(self) -> float:
        """Achieved."""
        return ratios.share(self.memory_bytes, self.latency_ms) / 1e6

    @property
    def efficiency(self) -> float:
        """What the machine's roof allows it to take over what it took: 0-1 but for noise."""
        return ratios.share(self.least_ms, self.latency_ms)


@dataclass(frozen=True)
class KernelProfile(Result):
    """One kernel in order of execution."""

    kernel: str  # the runtime's name for it
    delegate: str  # "XNNPACK" or "built-in"
    layer: int | None  # the operator that it works for, as a position among the layers; None if it fits none
    start_ms: float  # in one typical run, since its start
    duration_ms: float  # in the same run
    statistics: Statistics


@dataclass(frozen=True)
class NodeType(Result):
    """All kernels of one name, as in the official "Summary by node type"."""

    kernel: str
    delegate: str
    count: int
    average_ms: float  # of one call
    total_ms: float  # of one run
    share: float  # of the time of all kernels, 0-1
    cumulative: float
    times_called: int


@dataclass(frozen=True)
class Roof(Result):
    """What this machine reaches, measured between the runs of the profile on the same threads."""

    precision: str  # "float32" or "int8"
    gmac_per_s: float  # on the best of a few friendly convolutions
    convolution: str  # the best of them, e.g. "1x1, 256 to 256 channels at 32x32"
    bandwidth: tuple[tuple[int, float], ...]  # (bytes moved, GB/s) of additions, small to large


@dataclass(frozen=True)
class Fallback(Result):
    """Operators of one kind that XNNPACK left to built-in kernels, with the conversions that surround them."""

    computed = ("share",)

    op: str
    layers: tuple[str, ...]
    kernel_ms: float
    conversion_ms: float  # quantise, dequantise, cast and transpose operators next to them
    whole_ms: float  # the latency of the network

    @property
    def share(self) -> float:
        """Of both, of the network's latency, 0-1."""
        return ratios.share(self.kernel_ms + self.conversion_ms, self.whole_ms)


@dataclass(frozen=True)
class Island(Result):
    """Float operators between a dequantise and a quantise operator of an otherwise quantised file."""

    computed = ("share",)

    layers: tuple[str, ...]
    ops: tuple[str, ...]  # kinds of them, e.g. ("PRELU",)
    inside_ms: float
    conversion_ms: float
    whole_ms: float  # the latency of the network

    @property
    def share(self) -> float:
        """Of the conversions, of the network's latency, 0-1."""
        return ratios.share(self.conversion_ms, self.whole_ms)


@dataclass(frozen=True, repr=False)
class Profile(Result):
    """Where the time of one file goes. All times are at the pace of runs without the profiler."""

    headline = ("model", "runtime", "latency_ms", "size_bytes", "layers")

    computed = ("unattributed_ms", "initialisation_ms")

    model: str
    runtime: str
    threads: int
    runs: int
    latency_ms: float  # end to end, median, measured without the profiler
    latency_p10_ms: float
    latency_p90_ms: float
    size_bytes: int
    macs: int
    params: int
    layers: tuple[LayerProfile, ...]
    input_shapes: tuple[tuple[int, ...], ...] = ()  # NHWC, as the file stores them: what was timed
    statistics: Statistics = Statistics()  # end to end, with the profiler running
    load_ms: float = 0.0  # reading the file
    prepare_ms: float = 0.0  # the delegate takes it and packs its weights
    first_run_ms: float = 0.0
    peak_memory_bytes: int = 0  # resident memory that loading, preparing and one run took; 0 where unknown
    delegate_parts: int = 0  # pieces that XNNPACK took; 1 where nothing fell off it
    kernels: tuple[KernelProfile, ...] = ()
    node_types: tuple[NodeType, ...] = ()
    roofs: tuple[Roof, ...] = ()
    fallbacks: tuple[Fallback, ...] = ()
    islands: tuple[Island, ...] = ()
    disturbed: Disturbance | None = None

    @property
    def unattributed_ms(self) -> float:
        """What no layer accounts for."""
        return max(0.0, self.latency_ms - sum(layer.latency_ms for layer in self.layers))

    @property
    def initialisation_ms(self) -> float:
        """From the file's name to a model that is ready to run."""
        return self.load_ms + self.prepare_ms


@dataclass(frozen=True)
class Finding(Result):
    """One possible saving and its measured price.

    With the basis "what-if" an edit was made: the site before and after, timed side by side. `before_ms` is what the
    part takes in the profile of the whole network, and `after_ms` stands to it as the two did side by side: times of
    two runs are never subtracted. With "profile" only the file was read: `before_ms` is what its operators took,
    `after_ms` what remains if they go, so the saving is the most that there is to win.
    """

    computed = ("saving_ms", "share")

    technique: str
    layers: tuple[str, ...]
    needs: Needs
    before_ms: float
    after_ms: float
    whole_ms: float  # the latency of the network
    reason: str
    variant: str = ""  # of the technique on these layers; variants of one site exclude each other
    paper: str = ""  # where to read on about the technique
    layers_ms: float | None = None  # what the layers took in the profile of the whole network, if it tells
    basis: Literal["what-if", "profile"] = "what-if"
    error_ms: float | None = None  # standard error of the saving, where enough rounds were timed

    @property
    def saving_ms(self) -> float:
        return self.before_ms - self.after_ms

    @property
    def share(self) -> float:
        """Of the network's latency that is saved, 0-1; below 0 for a loss."""
        return ratios.share(self.saving_ms, self.whole_ms)

    @property
    def is_measurable(self) -> bool:
        """Whether the saving, or the loss, is more than noise."""
        return ratios.is_measurable(self.saving_ms, self.error_ms)


@dataclass(frozen=True)
class Refusal(Result):
    """A site that a technique looked at and left alone, and why."""

    technique: str
    layer: str
    reason: str


@dataclass(frozen=True, repr=False)
class Diagnosis(Result):
    """What could be saved in one network."""

    headline = ("model", "runtime", "precision", "latency_ms", "findings")

    computed = ("runtime", "precision")

    model: str
    deployment: Deployment  # what was timed
    latency_ms: float
    findings: tuple[Finding, ...]  # by needs (nothing, images, labels), then what-ifs first, then largest saving first
    refusals: tuple[Refusal, ...]
    notes: tuple[str, ...] = ()  # what to know about how the model was opened or timed
    source_check: str = ""  # how the network as opened compares with its source's own runtime, in a sentence
    disturbed: Disturbance | None = None

    @property
    def runtime(self) -> str:
        return self.deployment.runtime

    @property
    def precision(self) -> str:
        return self.deployment.precision


@dataclass(frozen=True, repr=False)
class Evaluation(Result):
    """Accuracy of the deployed file on a split, at the masks' own resolution, from one confusion matrix."""

    headline = ("model", "data", "split", "images", "miou", "pixel_accuracy")

    model: str
    data: str
    split: str
    images: int
    miou: float
    pixel_accuracy: float
    class_iou: dict[str, float | None]  # None: the class occurs neither in the masks nor in the predictions
    notes: tuple[str, ...] = ()  # how images and masks were understood, and whether the number means anything


@dataclass(frozen=True)
class ModelSummary(Result):
    """One deployed file in numbers. `miou` is None without labels; `agreement` is with the original's mask."""

    file: str
    input_size: tuple[int, int]  # height, width
    latency_ms: float
    end_to_end_ms: float  # RGB bytes at the original's input size in, class mask at its output size out
    size_bytes: int
    macs: int
    params: int
    miou: float | None
    agreement: float | None
    weights: str = "float32"  # in what the file stores them: "float32", "float16", "int8", or several, most first


@dataclass(frozen=True)
class AppliedEdit(Result):
    technique: str
    layers: tuple[str, ...]
    needs: Needs
    predicted_saving_ms: float  # before anything was trained, at the pace that the machine has in the proof
    realised_saving_ms: float
    reason: str
    alone_saving_ms: float | None = None  # what the what-if of its part alone told, before it was timed in its place
    realised_error_ms: float | None = None  # standard error of what was realised, where files were loaded many times

    @property
    def is_measurable(self) -> bool:
        """Whether what was realised is more than noise."""
        return ratios.is_measurable(self.realised_saving_ms, self.realised_error_ms)


@dataclass(frozen=True)
class BudgetCheck(Result):
    """One line of the budget against the deployed file."""

    name: str  # e.g. "max_size"
    wanted: str
    got: str
    met: bool


@dataclass(frozen=True)
class SourceFile(Result):
    """A file of the user's that a network was opened from."""

    name: str  # without its folder
    size_bytes: int
    sha256: str  # hexadecimal


@dataclass(frozen=True)
class DeployedForm(Result):
    """One form of a network that was written, timed and judged as it would be deployed."""

    computed = ("precision",)

    form: str  # "original", "exact edits", "plain int8", "192x256, int8", "trained", ...
    trained: bool  # False: its weights are the original's, as far as it still has them
    deployment: Deployment
    input_size: tuple[int, int]  # height, width
    speedup: float  # over the original in float32, timed in turns with it
    size_bytes: int
    miou: float | None  # None without labels
    agreement: float | None  # with the original's masks, percent of pixels
    drop: float  # points of mIoU lost; without labels, percent of pixels that changed class
    budget_met: bool
    chosen: bool

    @property
    def precision(self) -> str:
        return self.deployment.precision


@dataclass(frozen=True)
class InputSizeTrial(Result):
    """One point of the accuracy curve over input sizes: the network otherwise unchanged, nothing trained."""

    input_size: tuple[int, int]  # height, width
    latency_ms: float  # of the deployed precision
    accuracy: float  # mIoU of some validation images; without labels, percent of pixels as the original has them
    chosen: bool


@dataclass(frozen=True, repr=False)
class SlimResult(Result):
    """What `slimseg slim` made, beside what it started from; all latencies are of one pace."""

    headline = ("model", "run", "speedup", "miou_before", "miou_after", "budget_met", "edits")

    computed = ("speedup", "speedup_over_int8", "end_to_end_speedup", "runtime")

    model: str
    run: str
    baseline: ModelSummary  # the original: the user's own .tflite, else written as float32
    plain_int8: ModelSummary | None  # the original merely quantised; None where no images were given for its ranges
    result: ModelSummary
    budget_met: bool
    budget: tuple[BudgetCheck, ...]
    edits: tuple[AppliedEdit, ...]
    refusals: tuple[Refusal, ...]
    seconds: float
    host: str
    max_difference: float | None = None  # of exact edits, to the original's output on the images
    input_sizes: tuple[InputSizeTrial, ...] = ()  # largest first; empty where no size was tried
    deployment: Deployment = USUAL  # what the deployed file is made for, and all was timed on
    exported: ExportResult | None = None  # the files for apps, where they were asked for in the same command
    forms: tuple[DeployedForm, ...] = ()  # all that were compared, those that need no training first
    verdict: str = ""  # whether the budget is met, and which bounds are missed, in a sentence
    sources: tuple[SourceFile, ...] = ()  # what the network was opened from; empty for one that was given in memory
    data: str = ""  # folder of the images, absolute; empty where none were given
    validation_images: int = 0  # that mIoU and agreement were measured on
    source_check: str = ""  # how the network as opened compares with its source's own runtime, in a sentence
    notes: tuple[str, ...] = ()  # how model and images were understood, whether they fit, where time was short
    disturbed: Disturbance | None = None

    @property
    def miou_before(self) -> float | None:
        return self.before.miou

    @property
    def miou_after(self) -> float | None:
        return self.after.miou

    @property
    def before(self) -> ModelSummary:
        """The network as it came: `baseline` for machines."""
        return self.baseline

    @property
    def after(self) -> ModelSummary:
        """What was made of it: `result` for machines."""
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


@dataclass(frozen=True)
class QuantisedFile(Result):
    """One scheme's file in numbers, or why there is none. Zeros and None: not measured."""

    computed = ("speedup",)

    scheme: str  # of the original, which the others are compared with: "float32", or "float16" where it came in that
    ranges: str = ""  # how the ranges of activations were found; empty where the scheme has none
    latency_ms: float = 0.0
    original_ms: float = 0.0  # what the original takes at the same pace
    size_bytes: int = 0
    miou: float | None = None  # None without labels
    agreement: float | None = None  # with the original's masks, percent of pixels
    reason: str = ""  # why there is no file, or no accuracy
    corrected: str = ""  # what was done to the float network before, for example "equalise 64": scales within 64
    kept_float: tuple[str, ...] = ()  # layers that stay in float32 within an int8 file
    kept_cost_ms: float | None = None  # what those cost against int8 throughout

    @property
    def speedup(self) -> float:
        """Over the original; below 1: slower. 0 where there is no file."""
        return ratios.speedup(self.original_ms, self.latency_ms)

    @property
    def was_made(self) -> bool:
        """Whether there is a file that runs."""
        return self.latency_ms > 0


@dataclass(frozen=True)
class LayerSensitivity(Result):
    """How much one operator suffers from 8 bits."""

    layer: str
    changed_percent: float  # of pixels, when it alone is quantised


@dataclass(frozen=True, repr=False)
class QuantisationResult(Result):
    """What `slimseg quantize` tried, measured and chose."""

    headline = ("model", "file", "verdict", "budget_met", "candidates")

    model: str
    file: str
    io: str  # "float32", "int8" or "image"
    baseline: QuantisedFile
    candidates: tuple[QuantisedFile, ...]  # in the order in which they were tried
    chosen: QuantisedFile
    verdict: str
    budget_met: bool
    budget: tuple[BudgetCheck, ...]
    calibration_images: int
    validation_images: int
    fallbacks: tuple[Fallback, ...]  # of the chosen file
    islands: tuple[Island, ...]
    seconds: float
    host: str
    notes: tuple[str, ...] = ()
    sensitivities: tuple[LayerSensitivity, ...] = ()  # worst first; empty where nobody asked and nothing needed them
    disturbed: Disturbance | None = None


@dataclass(frozen=True)
class Port(Result):
    """One end of an exported file. real = (integer − zero_point) · scale, where `scale` is not 0."""

    name: str  # of the tensor, blob or feature
    shape: tuple[int, ...]  # as the file has it, in the `layout` of its exporter
    dtype: str  # numpy's name
    scale: float = 0.0
    zero_point: int = 0


@dataclass(frozen=True)
class Artefact(Result):
    """One exported file or package, or why there is none."""

    target: str  # a name in `runtimes.registry.EXPORTERS`
    files: tuple[str, ...]  # names within the folder, the one that is opened first in front; empty where it failed
    size_bytes: int = 0  # of all files together
    precision: str = ""  # "float32", "float16", "int8", ...
    input: Port | None = None
    output: Port | None = None
    output_kind: Literal["logits", "probabilities", "mask"] = "logits"  # of this file; it may differ between files
    takes_pixels: bool = False  # the normalisation is inside: the file is given the image's bytes
    for_mediapipe: bool = False  # carries the metadata that MediaPipe's ImageSegmenter wants
    miou: float | None = None  # None without labels, or where it could not be run
    disagreement: float | None = None  # percent of pixels whose class is not the source's; None where it was not run
    latency_ms: float | None = None
    verified: tuple[str, ...] = ()  # sentences
    not_verified: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()  # what may be slow on the device, in sentences
    picture: str = ""  # file in the folder: the image on which its mask differs most from the source's
    reason: str = ""  # why there is none


@dataclass(frozen=True)
class HeadTrial(Result):
    """One form of a network's output on one runtime: what it costs an app that wants the mask, or why there is none."""

    runtime: str  # and its precision, where that is int8: a `Deployment` in words
    form: str  # e.g. "logits at 96x128"; the first of its runtime is the network as it is
    latency_ms: float = 0.0  # from the prepared input to the output
    end_to_end_ms: float = 0.0  # from RGB bytes to the class mask, both of the image's size
    output_bytes: int = 0  # what the runtime hands to the app for one image
    changed_percent: float = 0.0  # of the mask's pixels: another class than on this runtime with the network as it is
    reason: str = ""  # why there is no such file


@dataclass(frozen=True)
class Provenance(Result):
    """What an exported network comes from, and how good it is in comparison."""

    sources: tuple[SourceFile, ...] = ()  # the user's own files; empty for a network that was given in memory
    original: ModelSummary | None = None  # the user's network, where the export is of a run of `slim`
    slimmed: ModelSummary | None = None  # what that run made of it
    original_miou: float | None = None  # of the user's network; None without labels
    miou_images: int = 0  # that every mIoU of the card was measured on
    budget: tuple[BudgetCheck, ...] = ()  # of the run
    budget_met: bool | None = None  # None: there was no budget
    verdict: str = ""  # on the budget, in a sentence
    source_check: str = ""  # how the network as opened compares with its source's own runtime, in a sentence


UNKNOWN = Provenance()


@dataclass(frozen=True)
class ModelCard(Result):
    """What somebody who builds an exported network into an app must know."""

    model: str
    input_size: tuple[int, int]  # height, width
    pixel_format: str  # "RGB" or "BGR"
    mean: tuple[float, float, float]  # input = (byte − mean) / std, in `pixel_format`
    std: tuple[float, float, float]
    classes: tuple[str, ...]
    palette: tuple[str, ...]  # "#rrggbb" of each class
    licence: str
    images: int  # that masks were compared on
    artefacts: tuple[Artefact, ...]
    recommendation: str = ""
    heads: tuple[str, ...] = ()  # for each runtime, which form of the output is cheapest for an app that wants masks
    host: str = ""  # where times were taken
    provenance: Provenance = UNKNOWN
    disturbed: Disturbance | None = None


@dataclass(frozen=True)
class Departure(Result):
    """The first layer whose values in a file are not the network's."""

    layer: str
    difference: float  # largest, as a share of the layer's largest value
    before: str  # the last layer before it that was compared and is alike; empty where it is the first


@dataclass(frozen=True)
class Parity(Result):
    """How far a file's masks are from those of the network that it came from."""

    file: str
    runtime: str  # a name in `runtimes.registry`
    images: int
    disagreement_percent: float  # of all pixels: another class than the network's
    worst_image: str
    worst_disagreement_percent: float
    miou: float | None  # of the file on these images; None without labels, or where the card's is of other images
    failed: bool  # a float file that differs in more than rounding
    departure: Departure | None = None  # of a file that failed


@dataclass(frozen=True, repr=False)
class ExportResult(Result):
    """What `slimseg export` wrote, and how far each file is from the network it came from."""

    headline = ("folder", "parities", "failed")

    computed = ("disturbed",)

    folder: str
    card: ModelCard
    parities: tuple[Parity, ...]  # of the files that can be run here
    heads: tuple[HeadTrial, ...]  # forms of the output, timed; empty where a form was asked for
    seconds: float
    notes: tuple[str, ...] = ()  # how images and masks were understood, and whether the network makes sense on them

    @property
    def disturbed(self) -> Disturbance | None:
        return self.card.disturbed

    @property
    def failed(self) -> tuple[Artefact, ...]:
        """What was asked for and is not there."""
        return tuple(each for each in self.card.artefacts if not each.files)
