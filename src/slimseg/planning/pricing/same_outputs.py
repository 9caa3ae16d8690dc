"""Measures how much the outputs of two forms of one network differ on images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from slimseg.graph.description import OutputKind
from slimseg.graph.graph import Graph
from slimseg.planning.pricing.probes import probe_images
from slimseg.runtimes import host, registry

TOLERANCE = 1e-4  # largest difference of probabilities, of logits over the largest logit, or share of a mask's pixels
IMAGES = 6
IN_PYTORCH = 2  # number of these images used in PyTorch, which is slow; files are compared on all of them
_Outputs = NDArray[Any]


def drawn(graph: Graph) -> NDArray[np.float32]:
    """Synthetic preprocessed images (N, height, width, channels), for a user who gives none."""
    if graph.input_shape[1] != 3:
        shape = (IMAGES, *graph.input_size, graph.input_shape[1])
        return np.random.default_rng(0).standard_normal(shape, np.float32)
    pipeline = host.ImagePipeline(graph.description.preprocessing, graph.input_size)
    return np.stack([pipeline(image) for image in probe_images(graph.input_size, IMAGES - 2)])


def of_graphs(before: Graph, after: Graph, images: NDArray[np.float32]) -> float:
    """Difference of two graphs' outputs in PyTorch, on the first images; to be compared with `TOLERANCE`."""
    old, new = (_run(graph, images[:IN_PYTORCH]) for graph in (before, after))
    return _difference(old, new, before.description.output_kind)


def of_files(before: Path, after: Path, images: NDArray[np.float32], asked: Graph) -> float:
    """Difference of two files' outputs on their runtime, as outputs of the kind that `asked` has."""
    old, new = (_predict(path, images, asked) for path in (before, after))
    return _difference(old, new, asked.description.output_kind)


def _run(graph: Graph, images: NDArray[np.float32]) -> _Outputs:
    with torch.inference_mode():
        return np.stack([graph(torch.from_numpy(image).permute(2, 0, 1)[None]).numpy()[0] for image in images])


def _predict(path: Path, images: NDArray[np.float32], asked: Graph) -> _Outputs:
    """A file's outputs; if `asked` gives masks and the file gives scores, these are turned into masks."""
    outputs = registry.of(path).predict(path, images)
    said = registry.of(path).read(path).description
    if asked.description.output_kind != "mask" or said is None or said.output_kind == "mask":
        return outputs
    size = asked.input_size
    return np.stack([host.to_mask(host.in_rows(each, size, path), size, said.output_kind) for each in outputs])


def _difference(old: _Outputs, new: _Outputs, kind: OutputKind) -> float:
    """Largest difference of probabilities, or of logits over the largest logit; or share of differing mask pixels."""
    if kind == "mask":
        return float(np.mean(old != new))
    scale = max(1.0, float(np.abs(old).max())) if kind == "logits" else 1.0
    return float(np.abs(old - new).max()) / scale
