"""What every command returns: frozen, with units in the names. Imports nothing of ours.

mIoU, IoU, accuracies and agreements are in percent (0-100), as the field quotes them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Needs = Literal["nothing", "images", "labels"]


class Result:
    """Base of all results: one JSON shape for machines."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)  # type: ignore[call-overload, no-any-return]


@dataclass(frozen=True)
class LayerProfile(Result):
    """One operator of the file, timed by the runtime's own profiler (median over runs)."""

    name: str  # graph node; the operator's output tensor carries it
    op: str  # TFLite operator, e.g. "CONV_2D"
    kernel: str  # what the runtime ran for it, e.g. "Convolution (NHWC, F32) IGEMM"; "" if fused into a neighbour
    latency_ms: float
    share: float  # of the end-to-end latency, 0-1
    macs: int
    params: int
    memory_bytes: int  # activations read and written, weights read
    output_shape: tuple[int, ...]  # NHWC, as in the file


@dataclass(frozen=True)
class Profile(Result):
    """Where the time of one file goes."""

    model: str
    runtime: str
    threads: int
    runs: int
    latency_ms: float  # end to end, median, measured without the profiler
    latency_p10_ms: float
    latency_p90_ms: float
    unattributed_ms: float  # end-to-end (profiled) time that no layer accounts for
    size_bytes: int
    macs: int
    params: int
    layers: tuple[LayerProfile, ...]

    def layer_ms(self) -> dict[str, float]:
        """Latency by layer name."""
        return {layer.name: layer.latency_ms for layer in self.layers}


@dataclass(frozen=True)
class Finding(Result):
    """One possible saving and its measured price.

    With the basis "what-if" an edit was made: the site before and after, timed side by side. With "profile" only the
    file was read: `before_ms` is what its operators took, `after_ms` what remains if they go, so the saving is the
    most that there is to win.
    """

    technique: str
    layers: tuple[str, ...]
    needs: Needs
    before_ms: float
    after_ms: float
    saving_ms: float
    share: float  # saving over the whole network's latency, 0-1
    reason: str
    variant: str = ""  # of the technique on these layers; variants of one site exclude each other
    section: str = ""  # of the article
    layers_ms: float | None = None  # what the layers took in the profile of the whole network, if it tells
    basis: Literal["what-if", "profile"] = "what-if"


@dataclass(frozen=True)
class Refusal(Result):
    """A site that a technique looked at and left alone, and why."""

    technique: str
    layer: str
    reason: str


@dataclass(frozen=True)
class Diagnosis(Result):
    """What could be saved in one network."""

    model: str
    precision: str  # what was timed: "float32" or "int8"
    latency_ms: float
    findings: tuple[Finding, ...]  # by needs (nothing, images, labels), then what-ifs first, then largest saving first
    refusals: tuple[Refusal, ...]
    headline: tuple[Finding, ...] = ()  # the largest savings whatever they need, one of each technique
    notes: tuple[str, ...] = ()  # what to know about how the model was opened or timed


@dataclass(frozen=True)
class Evaluation(Result):
    """Accuracy of the deployed file on a split, at the masks' own resolution, from one confusion matrix."""

    model: str
    data: str
    split: str
    images: int
    miou: float
    pixel_accuracy: float
    class_iou: dict[str, float | None]  # None: the class occurs neither in the masks nor in the predictions


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


@dataclass(frozen=True)
class AppliedEdit(Result):
    technique: str
    layers: tuple[str, ...]
    needs: Needs
    predicted_saving_ms: float
    realised_saving_ms: float
    reason: str


@dataclass(frozen=True)
class BudgetCheck(Result):
    """One line of the budget against the deployed file."""

    name: str  # e.g. "max_size"
    wanted: str
    got: str
    met: bool


@dataclass(frozen=True)
class SlimResult(Result):
    model: str
    run: str
    baseline: ModelSummary  # the original written as float32 .tflite
    plain_int8: ModelSummary  # the original merely quantised
    result: ModelSummary
    speedup: float
    speedup_over_int8: float
    end_to_end_speedup: float
    budget_met: bool
    budget: tuple[BudgetCheck, ...]
    edits: tuple[AppliedEdit, ...]
    refusals: tuple[Refusal, ...]
    seconds: float
    host: str
