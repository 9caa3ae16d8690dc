"""Measures the highest speed that this machine reaches, with which a layer's own speed is compared.

    arithmetic   a few convolutions that XNNPACK runs efficiently, float32 or int8: multiply-accumulates per second
    memory       additions of two tensors, from small (in the cache) to large: bytes per second, by bytes moved

At these rates a layer takes at least the longer of the times for its arithmetic and for its memory traffic (the
roofline model: Williams, Waterman, Patterson 2009). The test files are timed between the runs of the profiled file, so
that both see the same machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as tflite

from slimseg.graph.description import Description
from slimseg.results import Roof
from slimseg.tflite import file
from slimseg.tflite.schema import ModelBuilder

# Kernel size, channels and side of each convolution: 67 to 151 million multiply-accumulates.
_CONVOLUTIONS = ((1, 256, 32), (1, 512, 16), (3, 64, 64), (3, 128, 32))
_ADDED = (1 << 12, 1 << 15, 1 << 18, 1 << 21)  # elements per tensor of each addition
FUSED, OVERHEAD = "fused", "overhead"
BADLY_SERVED = 0.33  # a layer below this share of the roof, 0-1, is "badly served"
OVERHEAD_MS = 0.005  # a shorter latency is too inexact, as the profiler reports whole microseconds


@dataclass(frozen=True)
class Probe:
    """One file that is timed to measure the machine's speed."""

    precision: str
    name: str
    macs: int
    memory_bytes: int


def write_probes(precision: str, folder: Path) -> dict[Path, Probe]:
    """Write the files of one precision ("float32" or "int8") into `folder`."""
    written: dict[Path, Probe] = {}
    width = 4 if precision == "float32" else 1
    for kernel, channels, side in _CONVOLUTIONS:
        path = folder / f"{precision}_conv{kernel}_{channels}_{side}.tflite"
        path.write_bytes(_finish(precision, _convolution, kernel, channels, side))
        name = f"{kernel}x{kernel}, {channels} to {channels} channels at {side}x{side}"
        values = 2 * side * side * channels + kernel * kernel * channels * channels
        written[path] = Probe(precision, name, side * side * (kernel * channels) ** 2, values * width)
    for elements in _ADDED:
        path = folder / f"{precision}_add_{elements}.tflite"
        path.write_bytes(_finish(precision, _addition, elements))
        written[path] = Probe(precision, f"addition of {elements} values", 0, 3 * elements * width)
    return written


def roofs(timed: Sequence[tuple[Probe, float]]) -> tuple[Roof, ...]:
    """The roof of each precision, from the milliseconds of every probe."""
    return tuple(_roof(precision, timed) for precision in dict.fromkeys(probe.precision for probe, _ in timed))


def _roof(precision: str, timed: Sequence[tuple[Probe, float]]) -> Roof:
    own = [(probe, ms) for probe, ms in timed if probe.precision == precision]
    rates = {probe.name: probe.macs / ms / 1e6 for probe, ms in own if probe.macs}
    best = max(rates, key=lambda name: rates[name])
    bandwidth = sorted((probe.memory_bytes, probe.memory_bytes / ms / 1e6) for probe, ms in own if not probe.macs)
    return Roof(precision, rates[best], best, tuple(bandwidth))


def bandwidth_at(roof: Roof, memory_bytes: int) -> float:
    """GB/s for an operator that moves `memory_bytes`: the highest rate measured with at least as many bytes.

    Moving more bytes can only be slower, so the operator itself could reach that rate.
    """
    larger = [rate for size, rate in roof.bandwidth if size >= memory_bytes]
    return max(larger, default=roof.bandwidth[-1][1])


def least_ms(arithmetic: Roof | None, memory: Roof | None, macs: int, memory_bytes: int) -> tuple[float, float]:
    """Least milliseconds of an operator for its arithmetic, and for its memory traffic; 0.0 where a roof is None."""
    compute_ms = macs / arithmetic.gmac_per_s / 1e6 if arithmetic else 0.0
    memory_ms = memory_bytes / bandwidth_at(memory, memory_bytes) / 1e6 if memory else 0.0
    return compute_ms, memory_ms


def bound(least_ms: tuple[float, float], latency_ms: float) -> str:
    """What limits a layer that took `latency_ms`: "compute-bound", "memory-bound", "badly served" or "overhead".

    Args:
        least_ms: result of the function of that name.
    """
    compute_ms, memory_ms = least_ms
    if latency_ms < OVERHEAD_MS or not any(least_ms):
        return OVERHEAD
    if max(least_ms) < BADLY_SERVED * latency_ms:
        return "badly served"
    return "compute-bound" if compute_ms >= memory_ms else "memory-bound"


def _finish(precision: str, body: Callable[..., tuple[list[int], int]], *arguments: int) -> bytes:
    builder = ModelBuilder()
    inputs, output = body(builder, *arguments)
    data = builder.finish(inputs[:1], [output], Description())
    return data if precision == "float32" else _as_int8(data)


def _convolution(builder: ModelBuilder, kernel: int, channels: int, side: int) -> tuple[list[int], int]:
    random = np.random.default_rng(0)
    image = builder.tensor("x", (1, side, side, channels))
    weights = random.standard_normal((channels, kernel, kernel, channels), np.float32) / math.sqrt(channels) / kernel
    bias = builder.constant("b", np.zeros(channels, np.float32))
    output = builder.tensor("y", (1, side, side, channels))
    options = tflite.Conv2DOptionsT()
    options.strideH = options.strideW = options.dilationHFactor = options.dilationWFactor = 1
    inputs = [image, builder.constant("w", weights), bias]
    builder.operator(tflite.BuiltinOperator.CONV_2D, inputs, output, options, tflite.BuiltinOptions.Conv2DOptions)
    return [image], output


def _addition(builder: ModelBuilder, elements: int) -> tuple[list[int], int]:
    """An addition of the input and a constant of the same shape."""
    shape = (1, elements // 64, 1, 64)
    image, output = builder.tensor("x", shape), builder.tensor("y", shape)
    other = builder.constant("c", np.random.default_rng(0).standard_normal(shape, np.float32))
    options = tflite.AddOptionsT()
    builder.operator(tflite.BuiltinOperator.ADD, [image, other], output, options, tflite.BuiltinOptions.AddOptions)
    return [image], output


def _as_int8(data: bytes) -> bytes:
    """The same operators in int8, with arbitrary quantisation ranges, since only the speed matters."""
    model = file.parse(data, Path("probe"))
    for tensor in model.subgraphs[0].tensors:
        stored = model.buffers[tensor.buffer].data
        if tensor.name == b"b":
            tensor.type = tflite.TensorType.INT32
            _quantise(tensor, 0.02 * 0.02)
            continue
        tensor.type = tflite.TensorType.INT8
        _quantise(tensor, 0.02)
        if stored is not None and len(stored):
            values = np.frombuffer(bytes(stored), np.float32)
            model.buffers[tensor.buffer].data = (
                np.clip(np.rint(values / 0.02), -127, 127).astype(np.int8).view(np.uint8)
            )
    for entry in model.operatorCodes:
        entry.version = 3 if entry.builtinCode == tflite.BuiltinOperator.CONV_2D else 2
    return file.pack(model)


def _quantise(tensor: Any, scale: float) -> None:
    tensor.quantization = tflite.QuantizationParametersT()
    tensor.quantization.scale = np.array([scale], np.float32)
    tensor.quantization.zeroPoint = np.array([0], np.int64)
