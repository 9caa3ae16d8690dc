"""`.param` and `.bin`: what they say of themselves, and what is left to the app."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from slimseg.graph import edit, ops
from slimseg.graph.graph import Graph
from slimseg.runtimes import host
from slimseg.runtimes.exporter import Request
from slimseg.runtimes.ncnn import exporter, file, package, session
from slimseg.techniques.head import with_output
from slimseg.training.data import Pixels

Ask = Callable[..., Request]
GraphMask = Callable[[Graph, Pixels], np.ndarray]
SIZE = (32, 48)


def test_files_and_ends(ask: Ask) -> None:
    half, full = exporter.write(ask("ncnn")), exporter.write(ask("ncnn:fp32"))
    assert half.artefact.files == ("model.param", "model.bin")
    assert full.artefact.files == ("model_fp32.param", "model_fp32.bin")
    assert half.artefact.size_bytes < full.artefact.size_bytes
    assert half.artefact.input is not None
    assert half.artefact.output is not None
    assert half.artefact.input.shape == (3, *SIZE)
    assert half.artefact.output.shape == (4, *SIZE)
    assert all(path.is_file() for path in half.paths)


def test_a_mask_ends_in_scores(ask: Ask, graph: Graph) -> None:
    written = exporter.write(ask("ncnn", with_output(graph, "mask")))
    assert written.artefact.output_kind == "logits"
    assert written.said.description.output_kind == "logits"


def test_a_flat_output_is_given_as_its_map(ask: Ask, graph: Graph) -> None:
    network = nn.Sequential(graph.module.get_submodule("layer_0"), nn.Conv2d(8, 4, 1), ops.Reshape((1, 384, 4)))
    flat = edit.trace(network.eval(), (1, 3, *SIZE))
    written = exporter.write(ask("ncnn", flat))
    assert written.artefact.output is not None
    assert written.artefact.output.shape == (4, 16, 24)


@pytest.mark.skipif(not package.available(), reason=f"ncnn is not installed: {package.INSTALL}")
def test_masks_are_the_networks(ask: Ask, graph: Graph, pictures: list[Pixels], graph_mask: GraphMask) -> None:
    path = exporter.write(ask("ncnn")).path
    app = host.App(file.read(path))
    for image in pictures:
        (output,) = session.predict(path, app.prepare(image)[None])
        assert np.mean(app.mask(output, SIZE) == graph_mask(graph, image)) > 0.995
    assert torch.is_grad_enabled()
