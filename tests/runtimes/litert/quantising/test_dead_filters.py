"""Filters without weights keep their bias in int8."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from slimseg.graph import edit
from slimseg.runtimes.litert.quantising.quantizer import quantize_int8
from slimseg.runtimes.litert.session import predict
from slimseg.runtimes.litert.writing import writer

IMAGES = np.random.default_rng(0).standard_normal((4, 12, 16, 4), np.float32)


@pytest.mark.parametrize(
    "layer", [nn.Conv2d(4, 6, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1, groups=4), nn.Conv2d(4, 6, 1)], ids=repr
)
@pytest.mark.parametrize("left", [0.0, 1e-12])
def test_close_to_float(tmp_path: Path, layer: nn.Conv2d, left: float) -> None:
    torch.manual_seed(0)
    nn.init.normal_(layer.weight)
    with torch.no_grad():
        layer.weight[1:3] = left
        layer.bias.copy_(torch.linspace(-3, 3, layer.out_channels))  # type: ignore[union-attr]
    writer.write(edit.trace(nn.Sequential(layer).eval(), (1, 4, 12, 16)), tmp_path / "float.tflite")
    quantize_int8(tmp_path / "float.tflite", tmp_path / "int8.tflite", list(IMAGES))
    expected, got = predict(tmp_path / "float.tflite", IMAGES), predict(tmp_path / "int8.tflite", IMAGES)
    steps = np.ptp(expected) / 255
    assert np.abs(expected - got)[..., 1:3].max() <= steps  # a bias alone is off by rounding only
    assert np.abs(expected - got).mean() < 0.02 * expected.std()
