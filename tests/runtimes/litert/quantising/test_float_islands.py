"""Attention, normalisation and GELU are islands of float32 in int8 files, each in one piece."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from slimseg.frontends import load
from slimseg.runtimes import child
from slimseg.runtimes.litert.profiling.profiler import profile
from slimseg.runtimes.litert.quantising import float_islands, quantizer
from slimseg.runtimes.litert.session import predict
from slimseg.runtimes.litert.writing import writer
from slimseg.tflite import file

IMAGES = np.random.default_rng(0).standard_normal((4, 16, 16, 3), np.float32)


class Block(nn.Module):
    """A transformer block over the pixels of a small map."""

    def __init__(self, width: int = 16, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.embed, self.head = nn.Conv2d(3, width, 4, 4), nn.Conv2d(width, 5, 1)
        self.norm, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))
        self.wide, self.narrow = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        for norm in (self.norm, self.second):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, std=0.2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        n, channels, height, width = x.shape
        x = x.flatten(2).transpose(1, 2)
        y = self.norm(x)
        q, k, v = (
            layer(y).reshape(n, -1, self.heads, channels // self.heads).transpose(1, 2)
            for layer in (self.q, self.k, self.v)
        )
        y = (q @ k.transpose(2, 3) * 0.35).softmax(-1) @ v
        x = x + self.out(y.transpose(1, 2).reshape(n, -1, channels))
        x = x + self.narrow(F.gelu(self.wide(self.second(x))))
        return self.head(x.transpose(1, 2).reshape(n, channels, height, width))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("block") / "float.tflite"
    writer.write(load(Block().eval(), (16, 16), verify=False), path)
    return path


def quantised(path: Path, out: Path) -> Path:
    ranges = quantizer.measure_ranges(path, list(IMAGES))
    file.save(quantizer._quantise(str(path), "int8", ranges, "float32", ()), out)
    return out


def test_each_is_one_island_on_xnnpack(path: Path, tmp_path: Path) -> None:
    found = profile(quantised(path, tmp_path / "int8.tflite"), runs=1, within=child.shared(), with_roofs=False)
    assert not {each.op for each in found.fallbacks} & {"BATCH_MATMUL", "SOFTMAX", "GELU", "RSQRT"}
    kinds = sorted(tuple(sorted(each.ops)) for each in found.islands)
    norm = ("ADD", "MEAN", "MUL", "RSQRT", "SUB")
    assert kinds == [norm, norm, ("BATCH_MATMUL", "SOFTMAX"), ("GELU",)]


def test_linear_layers_and_sums_are_int8(path: Path, tmp_path: Path) -> None:
    operators = file.operators(quantised(path, tmp_path / "int8.tflite"))
    assert {each.dtype for each in operators if each.op in ("FULLY_CONNECTED", "CONV_2D")} == {"int8"}
    assert [each.dtype for each in operators if each.op == "ADD"].count("int8") == 2  # the block's own


class Normalised(nn.Module):
    """A layer norm of every pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.norm, self.after = nn.Conv2d(3, 16, 3, 1, 1), nn.LayerNorm(16), nn.Conv2d(16, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.norm(self.before(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2))


def test_small_variances_are_exact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Among 8-bit squares, those of a dark half of an image would be nearly zero."""
    torch.manual_seed(0)
    images, path = IMAGES.copy(), tmp_path / "float.tflite"
    images[:, :, :8] *= 0.2
    writer.write(load(Normalised().eval(), (16, 16), verify=False), path)
    expected, errors = predict(path, images), []
    for names in (float_islands.names, lambda _: frozenset()):
        monkeypatch.setattr(float_islands, "names", names)
        new = quantised(path, tmp_path / "int8.tflite")
        errors.append(np.square(predict(new, images) - expected).mean())
    assert errors[0] < 0.5 * errors[1]


@pytest.mark.parametrize("norm", [nn.GroupNorm(2, 8), nn.InstanceNorm2d(8, affine=True), nn.GroupNorm(1, 8)], ids=repr)
def test_norms_of_maps(norm: nn.Module, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1), norm, nn.ReLU(), nn.Conv2d(8, 5, 1))
    path = tmp_path / "float.tflite"
    writer.write(load(net.eval(), (16, 16), verify=False), path)
    new = quantised(path, tmp_path / "int8.tflite")
    found = profile(new, runs=1, within=child.shared(), with_roofs=False)
    assert not found.fallbacks
    assert len(found.islands) == 1
    expected = predict(path, IMAGES)
    assert np.abs(predict(new, IMAGES) - expected).mean() < 0.025 * expected.std()


class Sampled(nn.Module):
    """A map, read at positions that the network computes."""

    def __init__(self) -> None:
        super().__init__()
        self.values, self.positions = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        positions = torch.tanh(self.positions(x)).permute(0, 2, 3, 1)
        return F.grid_sample(self.values(x), positions, align_corners=False)


def test_positions_are_exact(tmp_path: Path) -> None:
    torch.manual_seed(0)
    path, new = tmp_path / "float.tflite", tmp_path / "new.tflite"
    writer.write(load(Sampled().eval(), (16, 16), verify=False), path)
    expected = predict(path, IMAGES[:1])
    for scheme in ("int8", "dynamic", "weight-only"):
        quantizer.quantize(path, new, scheme, quantizer.measure_ranges(path, list(IMAGES)))
        assert np.abs(predict(new, IMAGES[:1]) - expected).mean() < 0.1 * expected.std(), scheme
