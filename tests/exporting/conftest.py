"""A small described network, photographs that it has not seen, and what a writer is given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from slimseg.exporting.source import Source
from slimseg.exporting.targets import parse
from slimseg.graph import edit, ops
from slimseg.graph.description import Description
from slimseg.graph.graph import Graph
from slimseg.graph.preprocessing import Preprocessing
from slimseg.planning.pricing.probes import probe_images
from slimseg.runtimes.exporter import Request
from slimseg.training.data import Pixels

SIZE = (32, 48)
Ask = Callable[..., Request]


@pytest.fixture
def graph() -> Graph:
    """Half-size features, a skip connection, a resize and logits of four classes: (1, 4, 32, 48)."""
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 4, 1), ops.Resize(SIZE, "bilinear"))
    made = edit.trace(nn.Sequential(*layers).eval(), (1, 3, *SIZE), "small")
    made.description = Description(Preprocessing.of(127, 128), ("road", "sky", "tree", "car"), "logits")
    return made


@pytest.fixture
def pictures() -> list[Pixels]:
    return probe_images(SIZE, 4)


@pytest.fixture
def ask(graph: Graph, pictures: list[Pixels], tmp_path: Path) -> Ask:
    """A request for one target, of the small network unless another source is given."""

    def made(target: str, source: Source | Graph | None = None, with_images: bool = True) -> Request:
        wanted = source if isinstance(source, Source) else Source(source or graph)
        (parsed,) = parse(target)
        folder = tmp_path / target.replace(":", "_")
        folder.mkdir()
        images = pictures if with_images else []
        return Request(
            wanted.graph, parsed.form, parsed.stem, folder, images, pictures, ["#000000"] * 4, "CC0.",
            files=wanted.files, precision=wanted.precision,
        )  # fmt: skip

    return made


@pytest.fixture(scope="session")
def graph_mask() -> Callable[[Graph, Pixels], np.ndarray]:
    """The classes that a network itself sees in an image of its own size."""
    return mask_of


def mask_of(graph: Graph, image: np.ndarray) -> np.ndarray:
    wanted = graph.description.preprocessing
    scaled = (image.astype(np.float32) - np.float32(wanted.mean)) / np.float32(wanted.std)
    with torch.no_grad():
        output = graph(torch.from_numpy(scaled).permute(2, 0, 1)[None])
    return output[0].argmax(0).numpy()
