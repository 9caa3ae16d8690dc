"""Tests of the ONNX Runtime need its package, an optional extra."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from slimseg import models
from slimseg.graph.graph import Graph
from slimseg.runtimes.onnxruntime import writer
from slimseg.runtimes.onnxruntime.package import INSTALL, available


@pytest.fixture(scope="session", autouse=True)
def onnxruntime_installed() -> None:
    if not available():
        pytest.skip(f"onnxruntime is not installed: {INSTALL}")


@pytest.fixture(scope="session")
def small() -> Graph:
    """A small network of 5 classes, 64 by 96. Not to be changed."""
    torch.manual_seed(0)
    classes = [f"class {number}" for number in range(5)]
    return models.build(classes, (64, 96), "inverted residual", 0.5, mean=127, std=128)


@pytest.fixture(scope="session")
def written(small: Graph, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its file. Not to be written to."""
    path = tmp_path_factory.mktemp("onnx") / "small.onnx"
    writer.write(small, path)
    return path
