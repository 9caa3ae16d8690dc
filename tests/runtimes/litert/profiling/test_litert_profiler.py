"""Profiles of real files: the layers add up to the latency, and every one has a kernel."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from slimseg.errors import ModelError
from slimseg.results import Profile
from slimseg.runtimes.litert.profiling import profiler
from slimseg.runtimes.litert.profiling.profiler import profile
from slimseg.runtimes.litert.profiling.trace import Kernel, Trace
from slimseg.runtimes.litert.quantising.quantizer import quantize_int8


def attributed(result: Profile) -> float:
    layers = sum(layer.latency_ms for layer in result.layers)
    return layers / (layers + result.unattributed_ms)


def assert_of_one_size(layers_ms: float, latency_ms: float) -> None:
    """The layers' times and the plain latency, each the median of its own runs.

    5 % apart on a quiet machine; on a busy one as far as whatever else runs takes them. Counting a kernel twice, or
    in another unit, is farther.
    """
    assert 0.55 < layers_ms / latency_ms < 1.8


def check(result: Profile) -> None:
    layers = sum(layer.latency_ms for layer in result.layers)
    assert attributed(result) > 0.95
    assert_of_one_size(layers, result.latency_ms)
    assert result.latency_p10_ms <= result.latency_ms <= result.latency_p90_ms


@pytest.mark.parametrize("name", ["prisma-net", "slim_reshape"])
def test_real_networks(shared: Path, name: str) -> None:
    result = profile(shared / "models" / f"{name}.tflite", runs=15)
    check(result)
    assert result.runs == 15
    assert all(layer.kernel for layer in result.layers)
    for layer in result.layers:
        if layer.op == "TRANSPOSE_CONV":
            assert "Deconvolution" in layer.kernel
        if layer.op == "DEPTHWISE_CONV_2D":
            assert "DWConv" in layer.kernel


def test_int8_with_built_in_kernels(shared: Path, tmp_path: Path) -> None:
    path = tmp_path / "int8.tflite"
    sample = np.random.default_rng(0).random((1, 512, 512, 3), np.float32)
    quantize_int8(shared / "models" / "slim_reshape.tflite", path, [sample])
    result = profile(path, runs=15)
    check(result)
    kernels = {layer.op: layer.kernel for layer in result.layers}
    assert kernels["SOFTMAX"] == "SOFTMAX"  # a built-in kernel between two parts of the delegate
    assert kernels["QUANTIZE"] == kernels["DEQUANTIZE"] == "Convert (NC)"
    assert all(layer.kernel for layer in result.layers)


def test_a_tiny_network(tiny_mask: Path) -> None:
    result = profile(tiny_mask)
    assert result.runs > 50  # whole microseconds need many runs
    assert [layer.name for layer in result.layers] == ["conv", "both", "mask"]
    conv, both, mask = result.layers
    assert "Convolution" in conv.kernel
    assert "Copy" in both.kernel
    assert mask.latency_ms > 0
    assert conv.macs == result.macs
    assert_of_one_size(sum(layer.latency_ms for layer in result.layers), result.latency_ms)


def test_what_surrounds_the_runs(shared: Path) -> None:
    result = profile(shared / "models" / "prisma-net.tflite", runs=6)
    assert result.input_shapes == ((1, 256, 256, 3),)
    assert 0 < result.load_ms < result.initialisation_ms
    assert result.first_run_ms > 0
    if sys.platform == "linux":
        largest = max(layer.memory_bytes for layer in result.layers)
        assert largest < result.peak_memory_bytes < 60 * largest  # it has to hold that, and not hundreds of megabytes
    assert (result.delegate_parts, result.fallbacks, result.islands) == (1, (), ())
    assert {layer.delegate for layer in result.layers} == {"XNNPACK"}


def test_layers_kernels_and_types_speak_of_the_same_time(shared: Path) -> None:
    result = profile(shared / "models" / "slim_reshape.tflite", runs=6)
    ranked = sorted(result.layers, key=lambda layer: -layer.latency_ms)
    assert [layer.cumulative for layer in ranked] == sorted(layer.cumulative for layer in ranked)
    assert ranked[-1].cumulative == pytest.approx(sum(layer.share for layer in ranked))
    for layer in result.layers:
        own = layer.statistics
        assert own.min_ms <= own.average_ms <= own.max_ms
        assert own.min_ms <= own.first_ms <= own.max_ms
        assert own.times_called % result.runs == 0
    of_kernels = sum(kernel.statistics.average_ms for kernel in result.kernels)
    assert of_kernels == pytest.approx(sum(kind.total_ms for kind in result.node_types))
    assert of_kernels == pytest.approx(sum(layer.statistics.average_ms for layer in result.layers))
    assert sum(kind.count for kind in result.node_types) == len(result.kernels)
    starts = [kernel.start_ms for kernel in result.kernels]
    assert starts == sorted(starts)
    assert {result.layers[kernel.layer].op for kernel in result.kernels if kernel.layer is not None} >= {"SOFTMAX"}
    assert result.statistics.times_called == result.runs


def test_a_slow_file_runs_less_often(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiler, "_MAX_S", 0.0)
    assert len(profiler.measure(str(tiny), 1, 50).trace.total_us) == profiler._FEWEST


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        profile(tmp_path / "none.tflite")


def test_outlying_runs_are_left_out() -> None:
    elapsed = np.array([[10.0, 20.0], [10.0, 20.0], [11.0, 21.0], [500.0, 20.0]])
    trace = Trace((Kernel("a", 8, 0), Kernel("b", 8, 1)), elapsed, elapsed.sum(1), elapsed)
    kernel_ms, total_ms = trace.undisturbed(3, np.zeros(4)).typical()
    np.testing.assert_allclose(kernel_ms, [0.0108, 0.0208], atol=0.0004)
    assert total_ms == pytest.approx(0.031, abs=0.0011)
