"""Two forms of one network are told apart by their outputs, each kind of output in its own terms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from slimseg.graph import edit
from slimseg.graph.graph import Graph
from slimseg.planning.pricing import same_outputs
from slimseg.runtimes.litert.runtime import LITERT
from slimseg.techniques.head import with_output


def network(bias: float = 0.0, channels: int = 3) -> Graph:
    """Two classes of 16 x 16 pixels; `bias` is added to the first one's logits."""
    torch.manual_seed(0)
    layer = nn.Conv2d(channels, 2, 3, padding=1)
    with torch.no_grad():
        assert layer.bias is not None
        layer.bias[0] += bias
    return edit.trace(nn.Sequential(layer).eval(), (1, channels, 16, 16), "net")


@pytest.mark.parametrize("channels", [3, 4])
def test_drawn_images_fit_the_network_and_differ(channels: int) -> None:
    images = same_outputs.drawn(network(channels=channels))
    assert images.shape == (same_outputs.IMAGES, 16, 16, channels)
    assert images.dtype == np.float32
    assert len({image.tobytes() for image in images}) == same_outputs.IMAGES


def test_a_network_is_the_same_as_itself() -> None:
    graph = network()
    assert same_outputs.of_graphs(graph, network(), same_outputs.drawn(graph)) == 0


def test_logits_differ_by_the_share_of_the_largest() -> None:
    graph, images = network(), same_outputs.drawn(network())
    first = images[: same_outputs.IN_PYTORCH]
    with torch.inference_mode():
        largest = float(graph(torch.from_numpy(first).permute(0, 3, 1, 2)).abs().max())
    found = same_outputs.of_graphs(graph, network(bias=0.5), images)
    assert found == pytest.approx(0.5 / max(1.0, largest), rel=1e-3)


def test_masks_differ_by_the_share_of_their_pixels() -> None:
    graphs = [with_output(network(bias), "mask") for bias in (0.0, 1e3)]
    images = same_outputs.drawn(graphs[0])
    masks = graphs[0](torch.from_numpy(images[: same_outputs.IN_PYTORCH]).permute(0, 3, 1, 2))
    assert same_outputs.of_graphs(graphs[0], graphs[1], images) == pytest.approx(float((masks != 0).float().mean()))


@pytest.mark.parametrize("kind", ["logits", "mask"])
def test_files_are_compared_on_their_runtime(kind: str, tmp_path: Path) -> None:
    graphs = [with_output(network(bias), kind) for bias in (-1e3, 1e3)]  # type: ignore[arg-type]
    paths = [tmp_path / f"{name}.tflite" for name in ("same", "other")]
    for graph, path in zip(graphs, paths, strict=True):
        LITERT.write(graph, path, "full")
    images = same_outputs.drawn(graphs[0])
    assert same_outputs.of_files(paths[0], paths[0], images, graphs[0]) == 0
    assert same_outputs.of_files(paths[0], paths[1], images, graphs[0]) > 0.9
