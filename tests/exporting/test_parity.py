"""Masks of a file against those of the network; the layer at fault where a float file differs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from slimseg.errors import ModelError, Unsupported
from slimseg.exporting import parity
from slimseg.exporting.bisection import first_departure
from slimseg.graph import edit, ops
from slimseg.graph.graph import Graph
from slimseg.runtimes.litert.writing import writer as litert_writer
from slimseg.runtimes.ncnn import package
from slimseg.runtimes.ncnn import writer as ncnn_writer
from slimseg.tflite import file
from slimseg.training.data import Pixels, Split

RUNTIMES = [
    "litert",
    pytest.param("ncnn", marks=pytest.mark.skipif(not package.available(), reason="ncnn is not installed")),
]


class Branches(nn.Module):
    """A convolution with batch norm, a depthwise one, a transposed one, a concatenation, a resize, a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.norm = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, 1, 1, groups=8)
        self.down = nn.Conv2d(8, 8, 2, 2)
        self.up = nn.ConvTranspose2d(8, 8, 2, 2)
        self.relu1, self.relu2, self.relu3 = nn.ReLU(), nn.ReLU(), nn.ReLU()
        self.join = ops.Concat()
        self.classify = nn.Conv2d(16, 4, 1)
        self.resize = ops.Resize((32, 48), "bilinear")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = self.relu1(self.norm(self.stem(x)))
        left, right = self.relu2(self.depthwise(first)), self.relu3(self.up(self.down(first)))
        return self.resize(self.classify(self.join(left, right)))


@pytest.fixture
def branches(graph: Graph) -> Graph:
    torch.manual_seed(1)
    made = edit.trace(Branches().eval(), (1, 3, 32, 48), "branches")
    made.description = graph.description
    return made


def saved(graph: Graph, runtime: str, folder: Path) -> Path:
    if runtime == "ncnn":
        return ncnn_writer.write(graph, folder).param
    path = folder / "model.tflite"
    litert_writer.write(graph, path)
    path.write_bytes(file.embed_description(path.read_bytes(), graph.description))
    return path


@pytest.fixture
def labelled(tmp_path: Path, pictures: list[Pixels]) -> Split:
    """Photographs larger than the input, and masks without meaning."""
    places = []
    for number, picture in enumerate(pictures):
        for kind, pixels in (("image", picture), ("mask", (picture[..., 0] // 64).astype(np.uint8))):
            Image.fromarray(pixels).resize((72, 40)).save(tmp_path / f"{kind}{number}.png")
        places.append(number)
    return Split(
        tuple(tmp_path / f"image{number}.png" for number in places),
        tuple(tmp_path / f"mask{number}.png" for number in places),
    )


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_faithful_file(branches: Graph, labelled: Split, tmp_path: Path, runtime: str) -> None:
    reference = parity.Reference(branches, labelled, 4)
    found = parity.compare(reference, saved(branches, runtime, tmp_path))
    assert (found.runtime, found.images, found.failed) == (runtime, 4, False)
    assert found.disagreement_percent <= found.worst_disagreement_percent < 0.1
    assert found.miou is not None
    assert reference.miou is not None
    assert abs(found.miou - reference.miou) < 0.1


def test_images_are_spread_over_the_split(branches: Graph, labelled: Split) -> None:
    reference = parity.Reference(branches, labelled, 2)
    assert reference.names == ["image0.png", f"image{len(labelled.images) - 1}.png"]
    assert [mask.shape for mask in reference.masks] == [(40, 72)] * 2


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("layer", ["stem", "depthwise", "up", "classify"])
def test_the_layer_at_fault_is_named(branches: Graph, tmp_path: Path, runtime: str, layer: str) -> None:
    """The file is of a network with other weights in one layer."""
    other = branches.copy()
    node = next(each for each in other.layers() if each.name.startswith(layer))
    with torch.no_grad():
        other.module.get_submodule(str(node.target)).weight.mul_(-1.5)
    path = saved(other, runtime, tmp_path)
    found = parity.compare(parity.Reference(branches, None, 4), path)
    assert found.failed
    assert found.disagreement_percent > parity.FLOAT_TOLERANCE_PERCENT
    assert found.departure is not None
    assert found.departure.layer == node.name, "the layer, not the activation whose value the file has"


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_nothing_departs_from_a_faithful_file(
    branches: Graph, pictures: list[Pixels], tmp_path: Path, runtime: str
) -> None:
    assert first_departure(branches, saved(branches, runtime, tmp_path), pictures[0]) is None


def test_what_cannot_be_run_or_read(branches: Graph, tmp_path: Path) -> None:
    reference = parity.Reference(branches, None, 4)
    with pytest.raises(Unsupported, match="macOS"):
        parity.compare(reference, tmp_path / "model.mlpackage")
    with pytest.raises(ModelError):
        parity.compare(reference, tmp_path / "model.tflite")
