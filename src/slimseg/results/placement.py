"""Where each layer of a file runs on a phone's processor, and what a processor's compiler says about the file."""

from __future__ import annotations

from dataclasses import dataclass

from slimseg.results.result import Result


@dataclass(frozen=True)
class LayerPlacement(Result):
    """One operator of a file, in the order of the file."""

    name: str  # as `LayerProfile.name`: its main graph node in files that slimseg wrote
    op: str  # TFLite operator, e.g. "TRANSPOSE_CONV"
    processor: str  # where it runs: the processor's own name, or "cpu"
    reason: str = (
        ""  # why the processor does not take it, or computes it wrongly, in its own words; empty if all is well
    )


@dataclass(frozen=True)
class Compilation(Result):
    """What a compiler reports on a file that it compiled for one processor. A value that it does not report is None."""

    compile_s: float
    context_bytes: int | None = None  # size of the compiled network
    operators: int | None = None  # after the compiler's own rewriting
    ddr_read_bytes: int | None = None  # read from the phone's main memory in one inference
    ddr_write_bytes: int | None = None
    spill_bytes: int | None = None  # activations that do not fit the processor's own memory
    fill_bytes: int | None = None  # read back from there
    estimated_ms: float | None = None  # of one inference, as the compiler estimates it: not a measurement
    estimated_fastest_ms: float | None = None  # the ends of its estimate
    estimated_slowest_ms: float | None = None

    computed = ("ddr_bytes",)

    @property
    def ddr_bytes(self) -> int | None:
        """Bytes moved from and to main memory in one inference: the article's "memory access cost"."""
        if self.ddr_read_bytes is None or self.ddr_write_bytes is None:
            return None
        return self.ddr_read_bytes + self.ddr_write_bytes


@dataclass(frozen=True, repr=False)
class Placement(Result):
    """Which layers of a file a processor takes."""

    headline = ("model", "processor", "is_whole", "partitions", "copies")
    computed = ("is_whole", "taken")

    model: str  # the file's name
    processor: str  # "gpu", "npu:sm8750"
    judge: str  # who decided, in words: the processor's own delegate or compiler, or a list of operators and its date
    is_own_verdict: bool  # whether the processor's own delegate or compiler decided, and not a static check
    layers: tuple[LayerPlacement, ...]
    partitions: int  # parts of the network that the processor runs; 1 if it runs everything
    copies: int  # tensors that are copied from one processor to the other in one inference, without input and output
    compilation: Compilation | None = None

    @property
    def is_whole(self) -> bool:
        """Whether the processor takes every layer, and computes it as it should."""
        return self.taken == len(self.layers) and not self.refused

    @property
    def taken(self) -> int:
        """Number of layers that the processor takes."""
        return sum(layer.processor == self.processor for layer in self.layers)

    @property
    def refused(self) -> tuple[LayerPlacement, ...]:
        """The layers that stay on the CPU, or are computed wrongly."""
        return tuple(layer for layer in self.layers if layer.processor != self.processor or layer.reason)


@dataclass(frozen=True)
class LayerDifference(Result):
    """How far a processor's values of one operator are from the CPU's, on one image: roots of mean squares."""

    name: str  # as `LayerPlacement.name`
    op: str
    difference_percent: float  # of the size of the CPU's values
    added_percent: float  # how much of it was not yet there in the operator's inputs
    largest: float  # the CPU's largest value in its inputs and output; float16 has none above 65504


@dataclass(frozen=True, repr=False)
class Placements(Result):
    """Where one file's layers run on several processors."""

    headline = ("model", "placements")

    model: str
    placements: tuple[Placement, ...]


@dataclass(frozen=True)
class ProcessorState(Result):
    """What can be asked of one processor on this machine."""

    runtime: str
    name: str  # for `--processor`
    title: str
    answers: str  # what answers for it here, such as a driver or a compiler; empty if nothing does
    computes: bool  # whether its numbers can be computed here
    timed: bool  # whether it is really here, so that its times count
    install: str = ""  # what to install so that it answers


@dataclass(frozen=True, repr=False)
class ProcessorStates(Result):
    """All processors that slimseg knows."""

    headline = ("processors",)

    processors: tuple[ProcessorState, ...]
