"""A network before or after slimming in numbers, its file, and the limits that it is held to."""

from __future__ import annotations

from dataclasses import dataclass

from slimseg.results.result import Result


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
