"""What a diagnosis finds in a network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from slimseg import ratios
from slimseg.deployment import Deployment
from slimseg.results.disturbance import Disturbance
from slimseg.results.result import Result

Needs = Literal["nothing", "images", "labels"]


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
