"""A function of maps as a small network, and the check that nothing of it is left to another package."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

import slimseg
from slimseg.graph.graph import Graph
from slimseg.runtimes.litert.session import Session
from slimseg.runtimes.litert.writing import writer

Function = Callable[[Tensor], Tensor]
SIZE = (12, 10)


class After(nn.Module):
    """A function of what a convolution gives: 8 channels."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function
        self.before = nn.Conv2d(3, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.before(x))


def check(function: Function, folder: Path) -> Graph:
    """The function's Graph, which computes the same for one image and for two, and as a `.tflite`."""
    torch.manual_seed(0)
    module = After(function).eval()
    graph = slimseg.load(module, SIZE)
    assert graph.opaque() == []
    images = torch.randn(2, 3, *SIZE)
    with torch.no_grad():
        each = [module(image.clone()) for image in images.split(1)]
        torch.testing.assert_close(graph(images[:1]), each[0], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(graph(images), torch.cat(each), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(_written(graph, images[:1], folder), each[0], rtol=1e-4, atol=1e-4)
    return graph


def _written(graph: Graph, image: Tensor, folder: Path) -> Tensor:
    writer.write(graph, folder / "model.tflite")
    found = torch.from_numpy(Session(folder / "model.tflite").run(image.permute(0, 2, 3, 1).numpy()))
    return found.permute(0, 3, 1, 2) if found.ndim == 4 else found
