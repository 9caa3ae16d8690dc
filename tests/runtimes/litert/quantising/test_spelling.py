"""Activations that stand alone stay on XNNPACK in int8, and give the same numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from slimseg.graph import edit, ops
from slimseg.runtimes.litert.quantising import quantizer, spelling
from slimseg.runtimes.litert.session import predict
from slimseg.runtimes.litert.writing import writer
from slimseg.tflite import file


class ActivationFirst(nn.Module):
    """A residual unit whose sum is read both as it is and through its activation."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.first, self.act, self.second, self.sum = (
            nn.Conv2d(3, 8, 3, 2, 1),
            activation,
            nn.Conv2d(8, 8, 1),
            ops.Add(),
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        return self.sum(y, self.second(self.act(y)))


LONE = {"RELU", "RELU6", "RELU_N1_TO_1", "HARD_SWISH"}


@pytest.fixture(params=[nn.ReLU(), nn.ReLU6(), nn.Hardtanh(-1, 1), nn.Hardswish()], ids=repr)
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    torch.manual_seed(0)
    writer.write(edit.trace(ActivationFirst(request.param).eval(), (1, 3, 16, 20)), tmp_path / "m.tflite")
    return tmp_path / "m.tflite"


def test_no_activation_stands_alone_in_int8(path: Path, tmp_path: Path) -> None:
    images = np.random.default_rng(0).standard_normal((4, 16, 20, 3), np.float32)
    assert LONE & {each.op for each in file.operators(path)}
    quantizer.quantize_int8(path, tmp_path / "int8.tflite", list(images))
    assert not LONE & {each.op for each in file.operators(tmp_path / "int8.tflite")}
    expected, got = predict(path, images), predict(tmp_path / "int8.tflite", images)
    assert np.abs(expected - got).mean() < 0.03 * expected.std()


def test_the_float_file_computes_the_same(path: Path, tmp_path: Path) -> None:
    model = file.parse(path.read_bytes(), path)
    added = spelling.for_int8(model)
    assert spelling.for_int8(model) == {}  # a second time finds nothing
    file.save(file.pack(model), tmp_path / "spelled.tflite")
    images = np.random.default_rng(0).standard_normal((2, 16, 20, 3), np.float32)
    expected, got = predict(path, images), predict(tmp_path / "spelled.tflite", images)
    np.testing.assert_allclose(got, expected, atol=1e-6 if added else 0)
    assert [each.op for each in file.operators(tmp_path / "spelled.tflite")].count("MUL") == (2 if added else 1)
