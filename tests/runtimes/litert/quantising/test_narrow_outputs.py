"""Layers whose outputs never leave zero on the calibration images: int8 files of them run all the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from slimseg.graph import edit
from slimseg.graph.graph import Graph
from slimseg.runtimes.litert import session
from slimseg.runtimes.litert.quantising import narrow_outputs, quantizer
from slimseg.runtimes.litert.writing import writer

SIZE = (8, 12)


def dying(kind: str) -> Graph:
    """A layer whose ReLU lets nothing through, between two others."""
    torch.manual_seed(0)
    layers: dict[str, list[nn.Module]] = {
        "convolution": [nn.Conv2d(8, 16, 1), nn.ReLU()],
        "depthwise": [nn.Conv2d(8, 8, 3, 1, 1, groups=8), nn.ReLU()],
    }
    network = nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1), nn.ReLU(), *layers[kind])
    channels = network[-2].out_channels
    network.append(nn.Conv2d(int(channels), 4, 1))
    with torch.no_grad():
        for layer in layers[kind]:
            if isinstance(layer, nn.Conv2d):
                layer.weight.mul_(20)
                assert layer.bias is not None
                layer.bias.fill_(-1e3)
    return edit.trace(network.eval(), (1, 3, *SIZE))


@pytest.mark.parametrize("kind", ["convolution", "depthwise"])
def test_files_with_dead_layers_run(tmp_path: Path, kind: str) -> None:
    graph = dying(kind)
    float_path, path = tmp_path / "float.tflite", tmp_path / "int8.tflite"
    writer.write(graph, float_path)
    samples = [np.random.default_rng(seed).random((1, *SIZE, 3), np.float32) for seed in range(3)]
    ranges = {name: (low, high) for name, (low, high) in quantizer.measure_ranges(float_path, samples).items()}
    assert min(high - low for low, high in ranges.values()) == 0  # some layer is dead
    quantizer.quantize_int8(float_path, path, samples)
    difference = session.predict(path, samples[0]) - session.predict(float_path, samples[0])
    assert np.abs(difference).max() < 0.05


def test_ranges_keep_their_proportion() -> None:
    assert narrow_outputs._at_least((-1.0, 3.0), 8.0) == (-2.0, 6.0)
    assert narrow_outputs._at_least((0.0, 0.0), 8.0) == (0.0, 8.0)
    assert narrow_outputs._at_least((-1e-9, -1e-9), 8.0) == (-8.0, 0.0)
