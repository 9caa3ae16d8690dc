"""The profile of a file: operators, kernels, and what they are measured against."""

from __future__ import annotations

from dataclasses import dataclass

from slimseg import ratios
from slimseg.results.disturbance import Disturbance
from slimseg.results.result import Result


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
