"""`evaluate --processor npu:...`: masks of the simulated NPU beside the CPU's, and the layer at fault."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import slimseg
from slimseg.report import terminal
from slimseg.runtimes import registry

pytestmark = pytest.mark.usefixtures("qualcomm")


class Overflowing(nn.Module):
    """Sums of about 10⁵ in its middle, which float16 does not have; as the classes' scores are, they cancel."""

    def __init__(self) -> None:
        super().__init__()
        self.rises = nn.Conv2d(3, 4, 3, padding=1)
        self.falls = nn.Conv2d(4, 2, 1)
        self.rises.weight.data *= 3e5
        self.falls.weight.data *= 1e-5

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.falls(torch.relu(self.rises(x)))
        return scores


def test_values_beyond_float16_are_found(tmp_path, capsys):
    torch.manual_seed(0)
    graph = slimseg.load(Overflowing().eval(), input_size=(16, 32), mean=127, std=128, output_kind="logits")
    for split in ("train", "val"):
        for kind in ("images", "masks"):
            (tmp_path / split / kind).mkdir(parents=True)
        pixels = np.random.default_rng(0).integers(0, 256, (16, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / split / "images" / "one.png")
        Image.fromarray((pixels[..., 0] > 127).astype(np.uint8)).save(tmp_path / split / "masks" / "one.png")
    (npu,) = registry.processors(registry.DEFAULT, "npu:sm8750")
    found = slimseg.evaluate(graph, images=tmp_path, processor=npu)
    assert found.processor == "npu:sm8750"
    assert found.beside_cpu.changed_percent > 2
    assert found.beside_cpu.departure.layer == "rises"
    assert found.beside_cpu.beyond_half
    terminal.show_evaluation(found)
    assert "The first layer that differs is rises" in capsys.readouterr().out.replace("\n", " ")
