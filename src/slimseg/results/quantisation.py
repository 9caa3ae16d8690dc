"""The files that `quantize` makes and compares."""

from __future__ import annotations

from dataclasses import dataclass

from slimseg import ratios
from slimseg.results.disturbance import Disturbance
from slimseg.results.network import BudgetCheck
from slimseg.results.profile import Fallback, Island
from slimseg.results.result import Result


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
