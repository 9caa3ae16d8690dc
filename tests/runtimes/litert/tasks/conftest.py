"""A small described network, and MediaPipe's client where it is installed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from slimseg.graph import edit
from slimseg.graph.description import Description, OutputKind
from slimseg.graph.graph import Graph
from slimseg.graph.preprocessing import Preprocessing
from slimseg.runtimes import child
from slimseg.runtimes.litert.tasks import client

SIZE = (24, 32)

Segment = Callable[[bytes, np.ndarray], dict[str, Any]]
Network = Callable[..., Graph]


@pytest.fixture
def segment(tmp_path: Path) -> Segment:
    """What MediaPipe's `ImageSegmenter` makes of images (N, H, W, 3) with a file of some bytes."""
    if not client.available():
        pytest.skip(f"mediapipe is not installed: {client.INSTALL}")

    def run(data: bytes, images: np.ndarray) -> dict[str, Any]:
        path = tmp_path / "model.tflite"
        path.write_bytes(data)
        with child.Child() as process:
            found = process.call("slimseg.runtimes.litert.tasks.client:segment", str(path), list(images))
        return {name: np.asarray(value) for name, value in found.items()}

    return run


@pytest.fixture(scope="session")
def network() -> Network:
    """Two convolutions with stride 1, so that (1, classes, 24, 32) comes out, then `end`."""

    def build(
        classes: int = 5,
        kind: OutputKind = "logits",
        end: tuple[nn.Module, ...] = (),
        preprocessing: Preprocessing | None = None,
    ) -> Graph:
        torch.manual_seed(0)
        layers = (nn.Conv2d(3, 8, 3, 1, 1), nn.ReLU(), nn.Conv2d(8, classes, 3, 1, 1), *end)
        graph = edit.trace(nn.Sequential(*layers).eval(), (1, 3, *SIZE))
        names = ("ground", "person") if classes == 1 else tuple(f"class {i}" for i in range(classes))
        graph.description = Description(preprocessing or Preprocessing.of(127, 128), names, kind)
        return graph

    return build


@pytest.fixture(scope="session")
def pictures() -> np.ndarray:
    """(2, 24, 32, 3): soft spots of colour."""
    spots = np.random.default_rng(0).integers(0, 256, (2, 6, 8, 3), np.uint8)
    planes = torch.from_numpy(spots).permute(0, 3, 1, 2)
    return nn.functional.interpolate(planes, SIZE, mode="bilinear").permute(0, 2, 3, 1).numpy().copy()
