"""Strides and windows that no network has are refused before a runtime takes memory for them."""

from __future__ import annotations

from pathlib import Path

import pytest
import tflite_bombs
import torch
from torch import nn

from slimseg.errors import ModelError
from slimseg.frontends import load
from slimseg.runtimes.litert.profiling import profiler
from slimseg.runtimes.litert.writing import writer
from slimseg.tflite import file


@pytest.mark.parametrize(
    ("bomb", "said"),
    [
        (tflite_bombs.a_stride_of_a_million, "TRANSPOSE_CONV has a stride of 1048576 from 20 pixels to 40"),
        (tflite_bombs.windows_of_a_million, "MAX_POOL_2D has windows of 1000x1000 pixels"),
    ],
)
def test_they_are_refused_by_name(bomb, said: str, tmp_path: Path) -> None:
    path = tmp_path / "bomb.tflite"
    bomb(path)
    for reads in (file.read, profiler.profile):
        with pytest.raises(ModelError, match=said):
            reads(path)


@pytest.mark.parametrize(
    "layer",
    [nn.ConvTranspose2d(3, 2, 32, 32), nn.ConvTranspose2d(3, 2, 80, 80), nn.MaxPool2d(33, 1, 16), nn.AvgPool2d(48)],
)
def test_large_ones_of_real_networks_are_not(layer: nn.Module, tmp_path: Path) -> None:
    torch.manual_seed(0)
    path = tmp_path / "network.tflite"
    writer.write(load(layer.eval(), (48, 48)), path)
    assert file.read(path).operators
