"""How far an opened network's outputs are from those of the runtime that its source belongs to."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SourceCheck:
    """One comparison on one seeded picture of noise, or the reason why there was none."""

    runtime: str = ""  # "LiteRT", "onnxruntime" or "PyTorch"
    relative_difference: float = 0.0  # the largest of all values, over the largest value
    differing_percent: float = 0.0  # of the pixels: another class
    reason: str = ""  # why nothing was compared

    def __str__(self) -> str:
        if self.reason:
            return f"outputs were not compared with the source's own: {self.reason}"
        return (
            f"outputs as {self.runtime}'s within {self.relative_difference:.1g} of the largest value, "
            f"{self.differing_percent:.2f}% of the pixels of another class"
        )
