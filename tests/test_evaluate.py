"""Accuracy of a file against numbers worked out by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import slimseg
from slimseg.errors import DataError, ModelError
from slimseg.graph.description import Description
from slimseg.graph.graph import Graph
from slimseg.graph.preprocessing import Preprocessing
from slimseg.runtimes.host import in_rows
from slimseg.runtimes.litert.writing import writer
from slimseg.techniques.head import with_output
from slimseg.tflite import file


class Brightness(nn.Module):
    """Logits (N, 2, 8, 8) or one channel: the second class where the red channel is over one half."""

    def __init__(self, weight: list[float], bias: list[float]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, len(weight), 1)
        with torch.no_grad():
            self.conv.weight.zero_()
            self.conv.weight[:, 0, 0, 0] = torch.tensor(weight)
            self.conv.bias.copy_(torch.tensor(bias))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


def network(weight: list[float], bias: list[float], **options: str) -> Graph:
    return slimseg.load(Brightness(weight, bias), (8, 8), classes=("dark", "light"), name="brightness", **options)


def folder(root: Path, image: np.ndarray, mask: np.ndarray) -> Path:
    for split in ("train", "val"):
        for kind in ("images", "masks"):
            (root / split / kind).mkdir(parents=True)
        Image.fromarray(np.repeat(image[..., None], 3, 2)).save(root / split / "images" / "a.png")
        Image.fromarray(mask).save(root / split / "masks" / "a.png")
    return root


@pytest.fixture
def half(tmp_path: Path) -> Path:
    """16x16: left half dark, right half light; the mask says light in the last quarter, the top row is ignored."""
    image, mask = np.zeros((16, 16), np.uint8), np.zeros((16, 16), np.uint8)
    image[:, 8:] = 255
    mask[:, 12:] = 1
    mask[0] = 255
    return folder(tmp_path / "half", image, mask)


def test_a_constant_network(half: Path) -> None:
    found = slimseg.evaluate(network([0.0, 0.0], [1.0, 0.0]), images=half)
    # 15 rows of 16 pixels: 12 dark found, 4 light missed
    assert found.class_iou == {"dark": pytest.approx(75), "light": 0}
    assert found.miou == pytest.approx(37.5)
    assert found.pixel_accuracy == pytest.approx(75)
    assert (found.images, found.split, found.model) == (1, "val", "brightness")


def test_at_the_masks_own_resolution(half: Path) -> None:
    found = slimseg.evaluate(network([-1.0, 1.0], [1.0, 0.0]), images=half)
    # light is found in 8 columns of 16, of which 4 are light: at 8x8 as at 16x16, the edge lies between pixels
    assert found.class_iou == {"dark": pytest.approx(100 * 8 / 12), "light": pytest.approx(50)}
    assert found.miou == pytest.approx((100 * 8 / 12 + 50) / 2)


@pytest.mark.parametrize(("kind", "weight", "bias"), [("logits", 2.0, -1.0), ("probabilities", 1.0, 0.0)])
def test_one_channel_is_thresholded(half: Path, kind: str, weight: float, bias: float) -> None:
    found = slimseg.evaluate(network([weight], [bias], output_kind=kind), images=half)
    assert found.class_iou == {"dark": pytest.approx(100 * 8 / 12), "light": pytest.approx(50)}


def test_logits_are_resized_before_the_decision_and_a_mask_after_it(tmp_path: Path) -> None:
    # Of 8x8 scores, column 4 is all that is light: bilinear, the 4x larger mask sees 0.625 beside it fade to 0.375.
    image = np.zeros((32, 32), np.uint8)
    image[:, 16:20] = 255
    root = folder(tmp_path / "data", image, (image > 0).astype(np.uint8))
    logits = network([0.0, 1.0], [0.25, 0.0])  # light from a quarter on
    columns = {}
    for kind in ("logits", "mask"):
        path = tmp_path / f"{kind}.tflite"
        writer.write(with_output(logits, kind), path)  # type: ignore[arg-type]
        columns[kind] = slimseg.evaluate(path, images=root).class_iou["light"]
    assert columns["mask"] == pytest.approx(100)  # nearest neighbour: the same 4 columns
    assert columns["logits"] == pytest.approx(100 * 4 / 6)  # 1 more on both sides


def test_a_class_that_occurs_nowhere_does_not_count(tmp_path: Path) -> None:
    zeros = np.zeros((8, 8), np.uint8)
    found = slimseg.evaluate(network([0.0, 0.0], [1.0, 0.0]), images=folder(tmp_path / "data", zeros, zeros))
    assert found.class_iou == {"dark": 100, "light": None}
    assert found.miou == 100


def test_preprocessing_comes_from_the_file_or_else_from_the_caller(half: Path, tmp_path: Path) -> None:
    graph = network([-1.0, 1.0], [0.0, 0.0], mean=127, std=128)  # type: ignore[arg-type]
    path = tmp_path / "brightness.tflite"
    writer.write(graph, path)
    right = slimseg.evaluate(path, images=half).miou
    assert right == pytest.approx((100 * 8 / 12 + 50) / 2)
    foreign = Description(Preprocessing.of(0, 255), ("dark", "light"))  # every pixel is light, then
    assert slimseg.evaluate(path, images=half, description=foreign).miou < right
    stripped = tmp_path / "foreign.tflite"
    stripped.write_bytes(path.read_bytes().replace(b"slimseg", b"gesmils"))
    assert file.read_description(stripped) is None
    own = Description(Preprocessing.of(127, 128))
    found = slimseg.evaluate(stripped, images=half, description=own)
    assert found.miou == pytest.approx(right)
    assert set(found.class_iou) == {"class 0", "class 1"}


def test_a_mask_alone_does_not_know_its_classes(half: Path, tmp_path: Path) -> None:
    graph = slimseg.load(Brightness([-1.0, 1.0], [1.0, 0.0]), (8, 8))
    path = tmp_path / "mask.tflite"
    writer.write(with_output(graph, "mask"), path)
    with pytest.raises(DataError, match=r"classes\.txt"):
        slimseg.evaluate(path, images=half)
    (half / "classes.txt").write_text("dark\nlight\n")
    assert slimseg.evaluate(path, images=half).class_iou["light"] == pytest.approx(50)


def test_what_cannot_be_evaluated(half: Path, tmp_path: Path) -> None:
    graph = network([0.0, 0.0], [1.0, 0.0])
    with pytest.raises(DataError, match="no split"):
        slimseg.evaluate(graph, images=half, split="test")
    with pytest.raises(DataError, match="no masks"):
        slimseg.evaluate(graph, images=half / "val" / "images")
    with pytest.raises(ModelError, match="cannot be opened"):
        slimseg.evaluate(tmp_path / "none.tflite", images=half)


def test_a_real_file_with_a_flat_output(shared: Path) -> None:
    own = Description(Preprocessing.of(0, 255), output_kind="probabilities")
    found = slimseg.evaluate(shared / "models" / "prisma-net.tflite", images=shared / "portraits", description=own)
    assert found.images == 50
    assert len(found.class_iou) == 2
    assert found.class_iou["person"] == pytest.approx(79, abs=1)  # as measured elsewhere, see shared/models/README.md


def test_an_output_that_is_no_picture() -> None:
    with pytest.raises(ModelError, match="not a whole number per pixel"):
        in_rows(np.zeros(1000, np.float32), (8, 8), "odd.tflite")
