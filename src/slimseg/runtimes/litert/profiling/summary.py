"""Summarises a trace as layers, kernels, node types, and operators that the delegate does not run."""

from __future__ import annotations

import functools
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from slimseg import ratios
from slimseg.results import Fallback, Island, KernelProfile, LayerProfile, NodeType, Roof, Statistics
from slimseg.runtimes.litert.profiling import fallback, roof
from slimseg.runtimes.litert.profiling.attribution import attribute, partition
from slimseg.runtimes.litert.profiling.trace import BUILTIN, Kernel, Trace
from slimseg.runtimes.run_statistics import statistics
from slimseg.tflite import file

XNNPACK, BUILT_IN = "XNNPACK", "built-in"
_INTEGER = re.compile(r"\bQ[A-Z]*8|\b[SU]8\b|\bX8\b")  # in the name of a kernel
_INTEGERS = ("int8", "uint8", "int4")


class Summary:
    """One trace of one file with kernels attributed to operators.

    Every time is a mean over the runs, scaled to the speed of runs without the profiler: the additional time of a
    profiled run is the profiler's, and belongs to no layer.
    """

    def __init__(self, described: file.File, trace: Trace, roofs: tuple[Roof, ...], plain_ms: float) -> None:
        self.roofs = roofs
        self._operators = described.operators
        kernel_ms, profiled_ms = trace.typical()
        pace = ratios.share(plain_ms, min(profiled_ms, max(plain_ms, float(kernel_ms.sum())))) or 1.0
        self._trace = trace.at_pace(pace)
        self.total_ms = plain_ms
        self._owners = attribute(described.operators, trace.kernels)
        self._own: list[list[int]] = [[] for _ in described.operators]  # by operator, the positions of its kernels
        for position, owner in enumerate(self._owners):
            if owner is not None:
                self._own[owner].append(position)
        means_ms = self._trace.elapsed_us.mean(axis=0) / 1e3
        self._spent_ms = [float(means_ms[own].sum()) for own in self._own]
        self._builtin = {kernel.index for kernel in trace.kernels if kernel.type == BUILTIN}

    @property
    def unattributed_ms(self) -> float:
        return max(0.0, self.total_ms - sum(self._spent_ms))

    @property
    def delegate_parts(self) -> int:
        return len(partition(self._operators, self._builtin))

    def whole(self) -> Statistics:
        return statistics(self._trace.total_us)

    def layers(self) -> tuple[LayerProfile, ...]:
        """Profiles of all layers, in the file's order."""
        made = [self._layer(operator) for operator in self._operators]
        sums = ratios.cumulated(self._spent_ms, self.total_ms)
        return tuple(replace(layer, cumulative=each) for layer, each in zip(made, sums, strict=True))

    def kernels(self) -> tuple[KernelProfile, ...]:
        """Profiles of all kernels, in order of execution."""
        run = self._trace.most_typical()
        return tuple(
            KernelProfile(
                kernel=kernel.tag,
                delegate=delegate_of(kernel),
                layer=owner,
                start_ms=float(self._trace.start_us[run, position]) / 1e3,
                duration_ms=float(self._trace.elapsed_us[run, position]) / 1e3,
                statistics=statistics(self._trace.elapsed_us[:, position]),
            )
            for position, (kernel, owner) in enumerate(zip(self._trace.kernels, self._owners, strict=True))
        )

    def node_types(self) -> tuple[NodeType, ...]:
        return node_types(self._trace)

    def fallbacks(self) -> tuple[Fallback, ...]:
        return fallback.fallbacks(self._operators, self._builtin, self._spent_ms, self.total_ms)

    def islands(self) -> tuple[Island, ...]:
        return fallback.islands(self._operators, self._spent_ms, self.total_ms)

    def _layer(self, operator: file.Operator) -> LayerProfile:
        own = [self._trace.kernels[position] for position in self._own[operator.index]]
        milliseconds = self._spent_ms[operator.index]
        arithmetic, memory = self._roof(precision_of(operator, own)), self._roof(precision_of(operator))
        least_ms = roof.least_ms(arithmetic, memory, operator.macs, operator.memory_bytes)
        bound = roof.bound(least_ms, milliseconds) if own else roof.FUSED
        return LayerProfile(
            name=operator.name,
            op=operator.op,
            kernel=" + ".join(dict.fromkeys(kernel.tag for kernel in own)),
            latency_ms=milliseconds,
            whole_ms=self.total_ms,
            macs=operator.macs,
            params=operator.params,
            memory_bytes=operator.memory_bytes,
            output_shape=operator.output_shape,
            delegate=delegate_of(own[0]) if own else "",
            least_ms=max(least_ms),
            bound=bound,
            statistics=self._statistics(self._own[operator.index]),
            covers=operator.covers,
        )

    def _statistics(self, own: list[int]) -> Statistics:
        """Statistics of a layer over the runs: the sum of its kernels' times in each run."""
        if not own:
            return Statistics()
        elapsed = self._trace.elapsed_us[:, own]
        return replace(statistics(elapsed.sum(axis=1)), times_called=elapsed.size)

    @functools.cached_property
    def _roof_of(self) -> dict[str, Roof]:
        return {each.precision: each for each in self.roofs}

    def _roof(self, precision: str) -> Roof | None:
        return self._roof_of.get(precision)


def node_types(trace: Trace) -> tuple[NodeType, ...]:
    """Times by kind of kernel as in TFLite's own summary: averages over all calls, shares of the sum, largest first."""
    positions: dict[tuple[str, str], list[int]] = defaultdict(list)
    for position, kernel in enumerate(trace.kernels):
        positions[kernel.tag, delegate_of(kernel)].append(position)
    runs = len(trace.elapsed_us)
    whole_us = float(trace.elapsed_us.sum())
    cumulative, made = 0.0, []
    spent = {key: float(trace.elapsed_us[:, own].sum()) for key, own in positions.items()}
    for (tag, delegate), spent_us in sorted(spent.items(), key=lambda item: -item[1]):
        count = len(positions[tag, delegate])
        share = spent_us / whole_us if whole_us else 0.0
        cumulative += share
        average_ms, total_ms = spent_us / (count * runs) / 1e3, spent_us / runs / 1e3
        made.append(NodeType(tag, delegate, count, average_ms, total_ms, share, cumulative, count * runs))
    return tuple(made)


def delegate_of(kernel: Kernel) -> str:
    return BUILT_IN if kernel.type == BUILTIN else XNNPACK


def precision_of(operator: file.Operator, kernels: Sequence[Kernel] = ()) -> str:
    """Precision of an operator's tensors, or of its arithmetic if `kernels` are given.

    They differ in dynamic-range files, which have float tensors and integer kernels.
    """
    if operator.dtype in _INTEGERS or any(_INTEGER.search(kernel.tag) for kernel in kernels):
        return "int8"
    return "float32"


def precisions(described: file.File) -> tuple[str, ...]:
    """Precisions whose roofs a file needs: with integer weights the delegate uses integer kernels where it has them."""
    integer = described.integer or any(operator.dtype in _INTEGERS for operator in described.operators)
    return ("float32", "int8") if integer else ("float32",)
