"""What mixes the images of a batch is not trained, and says so."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import slimseg
from slimseg.errors import Unsupported
from slimseg.frontends import load
from slimseg.graph.graph import Graph
from slimseg.training import separate_images

SIZE = (16, 24)


class Attending(nn.Module):
    """Attention with the batch behind the sequence, PyTorch's order, or in front of it."""

    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 4, 1)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=batch_first)
        self.head = nn.Conv2d(8, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        tokens = x.flatten(2).permute(0, 2, 1) if self.attention.batch_first else x.flatten(2).permute(2, 0, 1)
        seen, _ = self.attention(tokens, tokens, tokens, need_weights=False)
        back = seen.permute(0, 2, 1) if self.attention.batch_first else seen.permute(1, 2, 0)
        return self.head(back.reshape(x.shape))


class Mixing(nn.Module):
    """A softmax over all pixels of all images."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 3, 4, 1), nn.Conv2d(8, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        weights = x.flatten(2).permute(2, 0, 1).reshape(-1, 8).softmax(0)
        return self.head(weights.reshape(-1, len(x), 8).permute(1, 2, 0).reshape(x.shape))


class Counted(nn.Module):
    """A view whose shape was written down for one image."""

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(3 * 16 * 24).softmax(0).reshape(1, 3, 16, 24)


@pytest.mark.parametrize("batch_first", [True, False])
def test_attention_keeps_images_apart(batch_first: bool) -> None:
    """torch.nn's attention joins the batch with its heads; the Graph keeps them apart."""
    network = Attending(batch_first).eval()
    graph = load(network, SIZE)
    separate_images.check(graph)
    images = torch.randn(3, 3, *SIZE)
    with torch.no_grad():
        torch.testing.assert_close(graph(images), network(images))


@pytest.mark.parametrize("network", [Mixing, Counted])
def test_what_mixes_the_images_of_a_batch_is_named(network: type[nn.Module]) -> None:
    graph = load(network().eval(), SIZE, name="mixed")
    with pytest.raises(Unsupported, match="mixed was made for one image at a time: it mixes the images of a batch"):
        separate_images.check(graph)


def test_others_are_trained(shapes_graph: Graph) -> None:
    separate_images.check(shapes_graph)
    separate_images.check(load(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Softmax(1)), SIZE))


def test_slim_refuses_to_train_it_and_edits_it_exactly(tmp_path: Path, shapes: Path) -> None:
    graph = load(Mixing().eval(), SIZE)
    with pytest.raises(Unsupported, match="`needs` nothing"):
        slimseg.slim(graph, images=shapes, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert torch.isfinite(graph(torch.zeros(1, 3, *SIZE))).all()
