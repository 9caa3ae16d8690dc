"""`quantize --runtime onnxruntime`: each file that is tried is the runtime's own, with the ranges of its twin."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from slimseg.commands.quantize import quantize
from slimseg.errors import OutputError, Unsupported, UserError
from slimseg.graph import edit
from slimseg.graph.graph import Graph
from slimseg.quantisation.carried import carried
from slimseg.quantisation.source import Source, open_source
from slimseg.runtimes import registry
from slimseg.runtimes.onnxruntime import file
from slimseg.runtimes.onnxruntime.runtime import ONNXRUNTIME

SAMPLES = [np.random.default_rng(seed).standard_normal((1, 16, 24, 3), np.float32) for seed in range(3)]


@pytest.fixture(scope="module")
def graph() -> Graph:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 4, 1))
    return edit.trace(layers.eval(), (1, 3, 16, 24))


@pytest.fixture(scope="module")
def source(graph: Graph, tmp_path_factory: pytest.TempPathFactory) -> Source:
    return open_source(graph, None, "float32", tmp_path_factory.mktemp("source"), ONNXRUNTIME)


def test_the_original_is_a_file_of_the_runtime(source: Source, graph: Graph):
    assert source.original.suffix == ".onnx"
    assert source.quantised_from.suffix == ".tflite"
    assert source.size_bytes == source.original.stat().st_size
    assert not source.is_half
    with torch.no_grad():
        expected = graph(torch.from_numpy(SAMPLES[0].transpose(0, 3, 1, 2).copy())).numpy()
    got = ONNXRUNTIME.predict(source.original, SAMPLES[0])
    np.testing.assert_allclose(got.transpose(0, 3, 1, 2), expected, atol=1e-5)


def test_int8_has_the_ranges_of_its_twin(source: Source, tmp_path: Path):
    twin = tmp_path / "int8.tflite"
    registry.DEFAULT.quantiser().quantise_int8(source.quantised_from, twin, SAMPLES)
    path = carried(twin, source.quantised_from, "int8", ONNXRUNTIME)
    assert path == twin.with_suffix(".onnx")
    assert file.read(path).is_int8
    theirs, ours = (registry.of(each).predict(each, SAMPLES[0]) for each in (twin, path))
    step = np.diff(np.unique(theirs)).min()
    assert np.abs(ours - theirs).max() < 1.5 * step
    assert (np.abs(ours - theirs) < 0.1 * step).mean() > 0.95
    assert carried(twin, source.quantised_from, "int8", registry.DEFAULT) == twin


def test_other_schemes(source: Source, tmp_path: Path):
    half = carried(tmp_path / "float16.tflite", source.quantised_from, "float16", ONNXRUNTIME)
    assert file.read(half).weights.startswith("float16"), "short constants stay in 32 bits"
    with pytest.raises(Unsupported, match="slimseg does not write dynamic for ONNX Runtime"):
        carried(tmp_path / "dynamic.tflite", source.quantised_from, "dynamic", ONNXRUNTIME)


def test_a_runtime_without_8_bits_is_refused(graph: Graph, tmp_path: Path):
    with pytest.raises(UserError, match="slimseg does not quantise for ncnn"):
        quantize(graph, out=tmp_path / "small.param", images=tmp_path, runtime="ncnn")


def test_the_file_must_have_the_runtimes_suffix(graph: Graph, tmp_path: Path):
    with pytest.raises(OutputError, match=r"does not end in \.onnx"):
        quantize(graph, out=tmp_path / "small.tflite", images=tmp_path, runtime="onnxruntime")
