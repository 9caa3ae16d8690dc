"""Tests of the ncnn runtime need its package, an optional extra."""

from __future__ import annotations

import pytest
import torch

from slimseg import models
from slimseg.runtimes.ncnn import writer
from slimseg.runtimes.ncnn.package import INSTALL, available
from slimseg.runtimes.ncnn.writer import Artefact


@pytest.fixture(scope="session", autouse=True)
def ncnn_installed() -> None:
    if not available():
        pytest.skip(f"ncnn is not installed: {INSTALL}")


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Artefact:
    """A small network of 5 classes, 64 by 96. Not to be written to."""
    torch.manual_seed(0)
    graph = models.build(
        [f"class {number}" for number in range(5)], (64, 96), "inverted residual", 0.5, mean=127, std=128
    )
    return writer.write(graph, tmp_path_factory.mktemp("small"), name="small")
