"""Exported files, what they were compared with, and where they came from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from slimseg.results.disturbance import Disturbance
from slimseg.results.network import BudgetCheck, ModelSummary, SourceFile
from slimseg.results.placement import Placement
from slimseg.results.result import Result


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
    placement: Placement | None = None  # of a file that is compiled for one processor, and runs on phones with it only
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
