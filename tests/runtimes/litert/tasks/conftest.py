"""A small described network, and MediaPipe's client where it is installed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
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

SIZE = (24, 32)
CLIENT = Path(__file__).with_name("segmenter_client.py")

Segment = Callable[[bytes, np.ndarray], dict[str, Any]]
Network = Callable[..., Graph]


@pytest.fixture
def segment(tmp_path: Path) -> Segment:
    """What MediaPipe's `ImageSegmenter` makes of images (N, H, W, 3) with a file of some bytes."""
    if find_spec("mediapipe") is None:
        pytest.skip("mediapipe is not installed: pip install 'slimseg[mediapipe]'")

    def run(data: bytes, images: np.ndarray) -> dict[str, Any]:
        model, pixels, result = (tmp_path / name for name in ("model.tflite", "images.npy", "result.npz"))
        model.write_bytes(data)
        np.save(pixels, images)
        command = [sys.executable, str(CLIENT), str(model), str(pixels), str(result)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        with np.load(result) as found:
            return dict(found)

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
