"""What training is fed with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from slimseg.graph import edit
from slimseg.graph.graph import Graph
from slimseg.graph.preprocessing import Preprocessing
from slimseg.training.batches import Batches, preprocess
from slimseg.training.data import open_folder


def test_labels_only_where_they_are_allowed(shapes_graph: Graph, shapes: Path) -> None:
    folder = open_folder(shapes)
    images, masks, large = next(iter(Batches(shapes_graph, folder, True, 0, (128, 160))))
    assert large is None
    assert images.shape == (8, 3, 128, 160)
    assert masks is not None
    assert masks.shape == (8, 128, 160)
    assert next(iter(Batches(shapes_graph, folder, False, 0, (128, 160)))).masks is None
    assert float(images.min()) >= -127 / 128 - 1e-6  # the network's own preprocessing
    assert float(images.max()) <= 1 + 1e-6


def test_masks_of_0_and_255_train_two_classes(shapes_graph: Graph, tmp_path: Path) -> None:
    for number in range(4):
        pixels = np.zeros((128, 160), np.uint8)
        pixels[30:90, 40:120] = 255
        for part, values in (("images", np.repeat(pixels[..., None], 3, 2)), ("masks", pixels)):
            for split in ("train", "val"):
                (tmp_path / split / part).mkdir(parents=True, exist_ok=True)
                Image.fromarray(values).save(tmp_path / split / part / f"{number}.png")
    masks = next(iter(Batches(shapes_graph, open_folder(tmp_path), True, 0, (128, 160)))).masks
    assert masks is not None
    assert float((masks == 1).float().mean()) > 0.15  # 23% of the images, whole or cropped
    assert float((masks == 255).float().mean()) < 0.05  # where a crop's edge is between two pixels


def test_a_smaller_student_gets_large_images_beside_its_own(shapes_graph: Graph, shapes: Path) -> None:
    small = edit.at_input_size(shapes_graph, (64, 80))
    batch = next(iter(Batches(small, open_folder(shapes), True, 0, shapes_graph.input_size)))
    assert batch.masks is not None
    assert batch.large is not None
    assert batch.images.shape == (8, 3, 64, 80)
    assert batch.masks.shape == (8, 64, 80)
    assert batch.large.shape == (8, 3, 128, 160)
    reduced = F.interpolate(batch.large, (64, 80), mode="bilinear", antialias=True)
    torch.testing.assert_close(batch.images, reduced, atol=1e-4, rtol=1e-4)


def test_preprocessing_is_the_networks_own() -> None:
    pixels = torch.tensor([1.0, 0.5, 0.0]).reshape(1, 3, 1, 1)
    given = Preprocessing.of((1.0, 2.0, 3.0), 2.0, "bgr")
    assert preprocess(pixels, given).flatten().tolist() == pytest.approx([-0.5, 62.75, 126.0])
