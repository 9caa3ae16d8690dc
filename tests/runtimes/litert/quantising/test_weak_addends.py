"""Sums of very unequal addends in int8: on XNNPACK, with the numbers of the built-in kernel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from slimseg import load, profile
from slimseg.runtimes.litert.quantising import quantizer, weak_addends
from slimseg.runtimes.litert.session import predict
from slimseg.runtimes.litert.writing import writer
from slimseg.tflite import file

pytestmark = pytest.mark.usefixtures("hurried")

SIZE = 24


class Unequal(nn.Module):
    """A strong branch plus `weak` of another, which something else reads, too."""

    def __init__(self, weak: float) -> None:
        super().__init__()
        self.strong, self.small = nn.Conv2d(3, 8, 3, 1, 1), nn.Conv2d(3, 8, 1)
        self.last, self.other = nn.Conv2d(8, 2, 1), nn.Conv2d(8, 2, 1)
        with torch.no_grad():
            self.small.weight.mul_(weak)
            self.small.bias.mul_(weak)
            self.other.weight.div_(weak)

    def forward(self, x: Tensor) -> Tensor:
        small = self.small(x)
        return self.last(self.strong(x) + small) + self.other(small)


def int8(folder: Path, weak: float) -> Path:
    torch.manual_seed(0)
    source, path = folder / "float.tflite", folder / "int8.tflite"
    writer.write(load(Unequal(weak).eval(), (SIZE, SIZE)), source)
    quantizer.quantize_int8(source, path, list(samples(2)))
    return path


def samples(count: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, SIZE, SIZE, 3)).astype(np.float32)


def rescaled(path: Path) -> list[str]:
    return [operator.name for operator in file.operators(path) if operator.name.endswith("_addend")]


def test_on_xnnpack_and_as_before(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    new = int8(tmp_path, 3e-4)
    assert len(rescaled(new)) == 1
    assert profile(new, runs=3).delegate_parts == 1
    model = file.parse(new.read_bytes(), new)
    graph = model.subgraphs[0]
    added = next(op for op in graph.operators if graph.tensors[op.outputs[0]].name.endswith(b"_addend"))
    reader = next(op for op in graph.operators if int(added.outputs[0]) in op.inputs)
    reader.inputs = np.where(reader.inputs == added.outputs[0], added.inputs[0], reader.inputs).astype(np.int32)
    graph.operators.remove(added)
    old = tmp_path / "plain" / "int8.tflite"
    old.write_bytes(file.pack(model))
    assert profile(old, runs=3).delegate_parts == 2  # the reason for all of this
    before, after = predict(old, samples(4)), predict(new, samples(4))
    step = np.ptp(before) / 255
    assert np.abs(after - before).max() <= 2 * step
    assert (after != before).mean() < 0.01
    again = file.parse(new.read_bytes(), new)
    weak_addends.strengthen(again)
    assert file.pack(again) == new.read_bytes()


@pytest.mark.parametrize("weak", [1.0, 0.02, 1e-7])
def test_left_alone(tmp_path: Path, weak: float) -> None:
    """What XNNPACK adds anyway, and what is so weak that not even QUANTIZE takes it."""
    assert not rescaled(int8(tmp_path, weak))
