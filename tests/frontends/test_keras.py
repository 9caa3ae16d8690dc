"""Keras files: the graph gives what Keras gives, Keras 2 and 3, and a hostile file gives one sentence."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from slimseg.frontends.keras import from_file
from slimseg.graph.graph import Graph

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Keras's own
    zoo = pytest.importorskip("keras_zoo", reason="Keras is not installed")


def saved(model: object, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # HDF5 is called legacy
        model.save(path)
    return path


def images(graph: Graph, count: int = 2) -> np.ndarray:
    _, channels, height, width = graph.input_shape
    return np.random.default_rng(1).normal(0, 1, (count, height, width, channels)).astype(np.float32)


def run(graph: Graph, batch: np.ndarray) -> np.ndarray:
    """NHWC in, NHWC out."""
    with torch.no_grad():
        result = torch.cat([graph(torch.from_numpy(image[None].transpose(0, 3, 1, 2).copy())) for image in batch])
    return (result.permute(0, 2, 3, 1) if result.ndim == 4 else result).numpy()


def assert_equal(given: np.ndarray, expected: np.ndarray) -> None:
    assert given.shape == expected.shape
    np.testing.assert_allclose(given, expected, atol=1e-4 * max(1.0, np.abs(expected).max()), rtol=0)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("build", zoo.ZOO, ids=lambda build: build.__name__)
def test_zoo_is_what_keras_computes(build, suffix, tmp_path):
    model = zoo.with_random_weights(build())
    graph = from_file(saved(model, tmp_path / f"net{suffix}"))
    batch = images(graph)
    assert graph.opaque() == []
    assert_equal(run(graph, batch), zoo.outputs(model, batch))
