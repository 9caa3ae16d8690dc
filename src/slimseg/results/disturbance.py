"""How much other work on the machine disturbed a timing."""

from __future__ import annotations

from dataclasses import dataclass

from slimseg.results.result import Result


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
