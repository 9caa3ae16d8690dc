"""The results that commands return: frozen dataclasses, with units in the field names.

This module imports nothing of slimseg except `ratios` and `deployment`. mIoU, IoU, accuracies and agreements are in
percent (0-100), as the field quotes them. All times of one result are scaled to one pace of the machine. Shares,
savings and speed-ups are computed from these times, so that they cannot contradict them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from html import escape
from typing import Any, ClassVar, Literal

from slimseg import ratios
from slimseg.deployment import USUAL, Deployment

Needs = Literal["nothing", "images", "labels"]


class Result:
    """Base of all results: gives each the same JSON shape, with its fields and the properties named in `computed`."""

    computed: ClassVar[tuple[str, ...]] = ()  # properties that `as_dict` includes beside the fields
    headline: ClassVar[tuple[str, ...]] = ()  # fields and properties shown at a prompt and in a notebook

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
    """A value in a few characters; for a tuple, its length."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{len(value)} of them" if isinstance(value, tuple) else repr(value)


def _plain(value: Any) -> Any:
    """`value` with all results inside it, at any depth, turned into dictionaries."""
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
    """How other work disturbed the timing. Disturbed runs are left out wherever undisturbed runs remain."""

    computed = ("said",)

    taken_share: float  # share of the timed runs' time in which other work had the processor, 0-1; 0 if unknown
    disturbed_share: float  # share of the timed runs that lost the processor or took over 1.2 times the quickest, 0-1
    drift: float = 1.0  # how many times longer the same file took at one time than at another

    @property
    def said(self) -> str:
        """The disturbance in one sentence."""
        seen = []
        if self.taken_share >= 0.01:
            seen.append(f"other processes took {self.taken_share:.0%} of the processor's time")
        if self.disturbed_share >= 0.01:
            seen.append(f"{self.disturbed_share:.0%} of the runs were interrupted or took over 1.2 times the quickest")
        if self.drift > 1.2:
            seen.append(f"the network's latency changed by a factor of {self.drift:.1f}")
        return (
            f"other work disturbed the timing ({', '.join(seen)}): disturbed runs were repeated and left "
            "out, but times may still be too long; measure again when nothing else runs"
        )


@dataclass(frozen=True)
class Statistics(Result):
    """Times of one operator, kernel or whole network over all profiled runs."""

    first_ms: float = 0.0
    average_ms: float = 0.0
    min_ms: float = 0.0
    max_ms: float = 0.0
    std_ms: float = 0.0  # population standard deviation
    times_called: int = 0  # calls in all runs together


@dataclass(frozen=True)
class LayerProfile(Result):
    """One operator of the file, timed by the runtime's own profiler: the mean over the undisturbed runs."""

    computed = ("share", "gmac_per_s", "gb_per_s", "efficiency")

    name: str  # in files that slimseg wrote, its main graph node: the convolution, not the nodes fused into it
    op: str  # TFLite operator, e.g. "CONV_2D"
    kernel: str  # the runtime's kernel for it, e.g. "Convolution (NHWC, F32) IGEMM"; "" if fused into a neighbour
    latency_ms: float
    whole_ms: float  # latency of the network
    macs: int
    params: int
    memory_bytes: int  # activations read and written, and weights read
    output_shape: tuple[int, ...]  # NHWC, as in the file
    delegate: str = ""  # "XNNPACK" or "built-in"; "" if no kernel ran for it
    cumulative: float = 0.0  # share of the latency that this layer and all slower ones take together, 0-1
    least_ms: float = 0.0  # shortest time that the machine's roof allows; 0 if no roof was measured
    bound: str = ""  # "compute-bound", "memory-bound", "badly served", "overhead" (too short to tell) or "fused"
    statistics: Statistics = Statistics()
    # All graph nodes that it computes, if it computes more than the one in its name: for example padding before it,
    # batch norm and activation behind it. For an operator that does part of a layer's work (`swish_gate`), that layer.
    covers: tuple[str, ...] = ()

    @property
    def also_computes(self) -> tuple[str, ...]:
        """Names in `covers` other than its own: what the operator computes beside the node that it is named after."""
        return tuple(name for name in self.covers if name != self.name)

    @property
    def share(self) -> float:
        """This layer's share of the network's latency, 0-1."""
        return ratios.share(self.latency_ms, self.whole_ms)

    @property
    def gmac_per_s(self) -> float:
        """Achieved arithmetic rate, in billions of multiply-accumulates per second."""
        return ratios.share(self.macs, self.latency_ms) / 1e6

    @property
    def gb_per_s(self) -> float:
        """Achieved memory bandwidth, in GB/s."""
        return ratios.share(self.memory_bytes, self.latency_ms) / 1e6

    @property
    def efficiency(self) -> float:
        """The shortest time that the machine's roof allows, divided by the latency: 0-1, except for noise."""
        return ratios.share(self.least_ms, self.latency_ms)


@dataclass(frozen=True)
class KernelProfile(Result):
    """One kernel call; a profile lists them in order of execution."""

    kernel: str  # the runtime's name for it
    delegate: str  # "XNNPACK" or "built-in"
    layer: int | None  # index in `Profile.layers` of the operator that it computes; None if no operator matches
    start_ms: float  # since the start of one typical run
    duration_ms: float  # in the same run
    statistics: Statistics


@dataclass(frozen=True)
class NodeType(Result):
    """All kernels of one name, as in the "Summary by node type" of TensorFlow Lite's benchmark tool."""

    kernel: str
    delegate: str
    count: int
    average_ms: float  # time of one call
    total_ms: float  # time of all its calls in one run
    share: float  # share of the time of all kernels, 0-1
    cumulative: float  # share of this kernel and all slower ones, 0-1
    times_called: int


@dataclass(frozen=True)
class Roof(Result):
    """The machine's peak rates, measured between the runs of the profile with the same number of threads."""

    precision: str  # "float32" or "int8"
    gmac_per_s: float  # rate of the fastest of a few convolutions that suit the runtime well
    convolution: str  # the fastest of them, e.g. "1x1, 256 to 256 channels at 32x32"
    bandwidth: tuple[tuple[int, float], ...]  # (bytes moved, GB/s) of tensor additions, small to large


@dataclass(frozen=True)
class Fallback(Result):
    """Operators of one kind that XNNPACK left to built-in kernels, with the conversion operators around them."""

    computed = ("share",)

    op: str
    layers: tuple[str, ...]
    kernel_ms: float
    conversion_ms: float  # quantise, dequantise, cast and transpose operators next to them
    whole_ms: float  # latency of the network

    @property
    def share(self) -> float:
        """Share of the network's latency that kernels and conversions take together, 0-1."""
        return ratios.share(self.kernel_ms + self.conversion_ms, self.whole_ms)


@dataclass(frozen=True)
class Island(Result):
    """Float operators between a dequantise and a quantise operator of an otherwise quantised file."""

    computed = ("share",)

    layers: tuple[str, ...]
    ops: tuple[str, ...]  # kinds of the float operators, e.g. ("PRELU",)
    inside_ms: float  # time of the float operators
    conversion_ms: float  # time of the dequantise and quantise operators around them
    whole_ms: float  # latency of the network

    @property
    def share(self) -> float:
        """Share of the network's latency that the conversions take, 0-1."""
        return ratios.share(self.conversion_ms, self.whole_ms)


@dataclass(frozen=True, repr=False)
class Profile(Result):
    """Where the time of one file goes. All times are scaled to runs without the profiler."""

    headline = ("model", "runtime", "latency_ms", "size_bytes", "layers")

    computed = ("unattributed_ms", "initialisation_ms")

    model: str
    runtime: str
    threads: int
    runs: int
    latency_ms: float  # median of the whole network, measured without the profiler
    latency_p10_ms: float  # 10th percentile of the same runs
    latency_p90_ms: float  # 90th percentile
    size_bytes: int
    macs: int
    params: int
    layers: tuple[LayerProfile, ...]
    input_shapes: tuple[tuple[int, ...], ...] = ()  # the shapes that were timed, as the file stores them (NHWC)
    statistics: Statistics = Statistics()  # of the whole network, with the profiler running
    load_ms: float = 0.0  # reading the file
    prepare_ms: float = 0.0  # applying the delegate, which packs the weights
    first_run_ms: float = 0.0
    peak_memory_bytes: int = 0  # resident memory that loading, preparing and one run took; 0 if unknown
    delegate_parts: int = 0  # subgraphs that XNNPACK runs; 1 if it runs every operator
    kernels: tuple[KernelProfile, ...] = ()
    node_types: tuple[NodeType, ...] = ()
    roofs: tuple[Roof, ...] = ()
    fallbacks: tuple[Fallback, ...] = ()
    islands: tuple[Island, ...] = ()
    disturbed: Disturbance | None = None

    @property
    def unattributed_ms(self) -> float:
        """The part of the latency that no layer accounts for."""
        return max(0.0, self.latency_ms - sum(layer.latency_ms for layer in self.layers))

    @property
    def initialisation_ms(self) -> float:
        """Time to load the file and prepare the model, until it is ready to run."""
        return self.load_ms + self.prepare_ms


@dataclass(frozen=True)
class Finding(Result):
    """One possible saving, and how it was measured.

    With the basis "what-if", the layers were timed before and after the edit, in alternating runs. `before_ms` is the
    time of these layers in the profile of the whole network; `after_ms` is `before_ms` times the measured ratio after /
    before. Times of separate runs are never subtracted. With the basis "profile", nothing was edited: `before_ms` is
    the time of the operators in the profile, and `after_ms` the time that remains if they are removed, so the saving is
    an upper bound.
    """

    computed = ("saving_ms", "share")

    technique: str
    layers: tuple[str, ...]
    needs: Needs
    before_ms: float
    after_ms: float
    whole_ms: float  # latency of the network
    reason: str
    variant: str = ""  # variant of the technique; at most one variant can be applied to the same layers
    paper: str = ""  # reference for the technique
    layers_ms: float | None = None  # time of the layers in the whole network's profile; None if it lists none of them
    basis: Literal["what-if", "profile"] = "what-if"
    error_ms: float | None = None  # standard error of the saving; None if too few rounds were timed

    @property
    def saving_ms(self) -> float:
        return self.before_ms - self.after_ms

    @property
    def share(self) -> float:
        """Share of the network's latency that is saved, 0-1; below 0 if the network becomes slower."""
        return ratios.share(self.saving_ms, self.whole_ms)

    @property
    def is_measurable(self) -> bool:
        """Whether the saving (or loss) is statistically significant; assumed where its standard error is unknown."""
        return ratios.is_measurable(self.saving_ms, self.error_ms)


@dataclass(frozen=True)
class Refusal(Result):
    """A layer that a technique examined and left unchanged, and why."""

    technique: str
    layer: str
    reason: str


@dataclass(frozen=True, repr=False)
class Diagnosis(Result):
    """The possible savings in one network."""

    headline = ("model", "runtime", "precision", "latency_ms", "findings")

    computed = ("runtime", "precision")

    model: str
    deployment: Deployment  # the runtime and precision that were timed
    latency_ms: float
    findings: tuple[Finding, ...]  # by needs (nothing, images, labels), then what-ifs first, then largest saving first
    refusals: tuple[Refusal, ...]
    notes: tuple[str, ...] = ()  # remarks on how the model was opened or timed
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
    """Accuracy of the deployed file on a split: one confusion matrix over all pixels, at the masks' own resolution."""

    headline = ("model", "data", "split", "images", "miou", "pixel_accuracy")

    model: str
    data: str
    split: str
    images: int
    miou: float
    pixel_accuracy: float
    class_iou: dict[str, float | None]  # None: the class occurs neither in the masks nor in the predictions
    notes: tuple[str, ...] = ()  # how images and masks were interpreted, and whether the mIoU is plausible


@dataclass(frozen=True)
class ModelSummary(Result):
    """One deployed file in numbers.

    `miou` is None without labels. `agreement` is the percentage of pixels whose class is the original network's.
    """

    file: str
    input_size: tuple[int, int]  # height, width
    latency_ms: float
    end_to_end_ms: float  # from RGB bytes at the original's input size to the class mask at its output size
    size_bytes: int
    macs: int
    params: int
    miou: float | None
    agreement: float | None
    weights: str = "float32"  # stored type: "float32", "float16", "int8"; if several, the most frequent first


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
class BudgetCheck(Result):
    """One bound of the budget, compared with the deployed file."""

    name: str  # e.g. "max_size"
    wanted: str
    got: str
    met: bool


@dataclass(frozen=True)
class SourceFile(Result):
    """A user's file from which a network was opened."""

    name: str  # without its folder
    size_bytes: int
    sha256: str  # hexadecimal


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


@dataclass(frozen=True)
class QuantisedFile(Result):
    """The file of one quantisation scheme in numbers, or why there is none. 0 and None mean: not measured."""

    computed = ("speedup",)

    scheme: str  # for the original, with which all others are compared: "float32", or "float16" if its weights were
    ranges: str = ""  # calibration method for the activations' ranges; empty if the scheme needs no ranges
    latency_ms: float = 0.0
    original_ms: float = 0.0  # latency of the original at the same pace of the machine
    size_bytes: int = 0
    miou: float | None = None  # None without labels
    agreement: float | None = None  # agreement with the original's masks, percent of pixels
    reason: str = ""  # why there is no file, or no accuracy
    corrected: str = ""  # correction of the float network before quantising, e.g. "equalise 64": scales within 64
    kept_float: tuple[str, ...] = ()  # layers that stay in float32 within an int8 file
    kept_cost_ms: float | None = None  # latency that these layers add over a file that is int8 throughout

    @property
    def speedup(self) -> float:
        """Speed-up over the original; below 1 if slower, 0 if there is no file."""
        return ratios.speedup(self.original_ms, self.latency_ms)

    @property
    def was_made(self) -> bool:
        """Whether there is a file that runs."""
        return self.latency_ms > 0


@dataclass(frozen=True)
class LayerSensitivity(Result):
    """How much quantising one operator to 8 bits changes the mask."""

    layer: str
    changed_percent: float  # percent of pixels that change class when this operator alone is quantised


@dataclass(frozen=True, repr=False)
class QuantisationResult(Result):
    """The files that `slimseg quantize` tried and measured, and the one that it chose."""

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
    fallbacks: tuple[Fallback, ...]  # fallbacks in the chosen file
    islands: tuple[Island, ...]
    seconds: float
    host: str
    notes: tuple[str, ...] = ()
    sensitivities: tuple[LayerSensitivity, ...] = ()  # most sensitive first; empty unless requested or needed
    disturbed: Disturbance | None = None


@dataclass(frozen=True)
class Port(Result):
    """The input or output of an exported file. If `scale` is not 0: real = (integer − zero_point) · scale."""

    name: str  # name of the tensor, blob or feature
    shape: tuple[int, ...]  # as stored in the file, in the `layout` of its exporter
    dtype: str  # numpy's name for the type
    scale: float = 0.0  # 0: not quantised
    zero_point: int = 0


@dataclass(frozen=True)
class Artefact(Result):
    """One exported file or package, or why there is none."""

    target: str  # a name in `runtimes.registry.EXPORTERS`
    files: tuple[str, ...]  # names within the folder, the file that an app opens first; empty if the export failed
    size_bytes: int = 0  # total size of all files
    precision: str = ""  # "float32", "float16", "int8", ...
    input: Port | None = None
    output: Port | None = None
    output_kind: Literal["logits", "probabilities", "mask"] = "logits"  # files of one export may differ in this
    takes_pixels: bool = False  # True: the file contains the normalisation, and its input is the image's bytes
    for_mediapipe: bool = False  # True: carries the metadata that MediaPipe's ImageSegmenter needs
    miou: float | None = None  # None without labels, or if the file could not be run
    disagreement: float | None = None  # percent of pixels whose class differs from the source's; None if it was not run
    latency_ms: float | None = None
    verified: tuple[str, ...] = ()  # what was verified, in sentences
    not_verified: tuple[str, ...] = ()  # what was not verified, in sentences
    remarks: tuple[str, ...] = ()  # what may be slow on the device, in sentences
    picture: str = ""  # file in the folder: the image on which its mask differs most from the source's
    reason: str = ""  # why there is no file


@dataclass(frozen=True)
class HeadTrial(Result):
    """One form of a network's output on one runtime: the time an app needs to get the mask, or why there is no file."""

    runtime: str  # a `Deployment` in words: the runtime, and the precision if it is int8
    form: str  # e.g. "logits at 96x128"; the first form of each runtime is the unchanged network's
    latency_ms: float = 0.0  # from the prepared input to the output
    end_to_end_ms: float = 0.0  # from RGB bytes to the class mask, both at the image's size
    output_bytes: int = 0  # size of the output for one image
    changed_percent: float = 0.0  # percent of pixels whose class differs from the unchanged network's on this runtime
    reason: str = ""  # why there is no such file


@dataclass(frozen=True)
class Provenance(Result):
    """The origin of an exported network, and how it compares with that origin."""

    sources: tuple[SourceFile, ...] = ()  # the user's own files; empty for a network in memory
    original: ModelSummary | None = None  # the user's network; None unless a run of `slim` is exported
    slimmed: ModelSummary | None = None  # the network that this run made
    original_miou: float | None = None  # mIoU of the user's network; None without labels
    miou_images: int = 0  # number of images on which every mIoU of the card was measured
    budget: tuple[BudgetCheck, ...] = ()  # the bounds of the run's budget
    budget_met: bool | None = None  # None: there was no budget
    verdict: str = ""  # whether the budget is met, in a sentence
    source_check: str = ""  # how the network as opened compares with its source's own runtime, in a sentence


UNKNOWN = Provenance()


@dataclass(frozen=True)
class ModelCard(Result):
    """What an app developer needs to know to use an exported network."""

    model: str
    input_size: tuple[int, int]  # height, width
    pixel_format: str  # "RGB" or "BGR"
    mean: tuple[float, float, float]  # input = (byte − mean) / std, in `pixel_format`
    std: tuple[float, float, float]
    classes: tuple[str, ...]
    palette: tuple[str, ...]  # "#rrggbb" of each class
    licence: str
    images: int  # number of images on which masks were compared
    artefacts: tuple[Artefact, ...]
    recommendation: str = ""
    heads: tuple[str, ...] = ()  # for each runtime, the form of the output that gives an app the mask soonest
    host: str = ""  # machine on which times were measured
    provenance: Provenance = UNKNOWN
    disturbed: Disturbance | None = None


@dataclass(frozen=True)
class Departure(Result):
    """The first layer whose values in a file differ from those in the network."""

    layer: str
    difference: float  # largest difference, as a share of the layer's largest value
    before: str  # the last compared layer before it, whose values agree; empty if it is the first


@dataclass(frozen=True)
class Parity(Result):
    """How far a file's masks differ from those of the network from which it was exported."""

    file: str
    runtime: str  # a name in `runtimes.registry`
    images: int
    disagreement_percent: float  # percent of all pixels whose class differs from the network's
    worst_image: str
    worst_disagreement_percent: float
    miou: float | None  # on these images; None without labels, or if the card's mIoU was measured on other images
    failed: bool  # True: a float file that differs by more than rounding
    departure: Departure | None = None  # where a file that failed first differs


@dataclass(frozen=True, repr=False)
class ExportResult(Result):
    """The files that `slimseg export` wrote, and how far each differs from the network it came from."""

    headline = ("folder", "parities", "failed")

    computed = ("disturbed",)

    folder: str
    card: ModelCard
    parities: tuple[Parity, ...]  # of the files that this machine can run
    heads: tuple[HeadTrial, ...]  # timed forms of the output; empty if the caller chose the form
    seconds: float
    notes: tuple[str, ...] = ()  # how images and masks were interpreted, and whether the network suits them

    @property
    def disturbed(self) -> Disturbance | None:
        return self.card.disturbed

    @property
    def failed(self) -> tuple[Artefact, ...]:
        """The requested exports that failed."""
        return tuple(each for each in self.card.artefacts if not each.files)
