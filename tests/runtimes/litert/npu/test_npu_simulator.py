"""Qualcomm's simulator computes what the CPU computes, up to the NPU's rounding."""

from __future__ import annotations

import numpy as np
import pytest

from slimseg.errors import DataError
from slimseg.runtimes import registry

pytestmark = pytest.mark.usefixtures("qualcomm")


def npu(name):
    (found,) = registry.processors(registry.DEFAULT, f"npu:{name}")
    return found


def test_int8_differs_by_rounding_alone(int8_file):
    images = np.random.default_rng(0).integers(-128, 128, (2, 16, 16, 4)).astype(np.int8)
    assert npu("sm8350").computes
    found, cpu = npu("sm8350").predict(int8_file, images), registry.DEFAULT.predict(int8_file, images)
    assert (found.shape, found.dtype) == (cpu.shape, np.int8)
    assert np.ptp(cpu[0].astype(int)) > 100
    assert np.abs(found.astype(int) - cpu).max() <= 1
    assert not np.array_equal(found[0], found[1])
    with pytest.raises(DataError, match="inputs of shape"):
        npu("sm8350").predict(int8_file, images[:, :8])


def test_floats_are_those_of_16_bits(tiny):
    images = np.random.default_rng(0).standard_normal((1, 32, 32, 4), np.float32)
    found, cpu = npu("sm8750").predict(tiny, images), registry.DEFAULT.predict(tiny, images)
    assert found.dtype == np.float32
    off = np.abs(found - cpu).max()
    assert 0 < off < 0.01 * np.abs(cpu).max()


def test_the_layer_that_departs_has_the_largest_share(int8_file, tiny):
    (layer,) = npu("sm8750").differences(int8_file, np.full((1, 16, 16, 4), 50, np.int8))
    assert (layer.name, layer.op) == ("conv", "CONV_2D")
    assert layer.difference_percent == layer.added_percent < 1
    assert 1 < layer.largest < 26  # 255 steps of 0.1
    conv, join = npu("sm8750").differences(tiny, np.full((1, 32, 32, 4), 1e5, np.float32))  # beyond float16
    assert (conv.name, join.name) == ("conv", "both")
    assert conv.added_percent > 10
    assert conv.largest > 65504
    assert join.difference_percent >= conv.difference_percent
    assert join.added_percent < 1


def test_a_time_is_estimated_where_the_compiler_does(int8_file):
    found = npu("sa8255").place(int8_file).compilation
    assert 0 < found.estimated_fastest_ms <= found.estimated_ms <= found.estimated_slowest_ms < 1
