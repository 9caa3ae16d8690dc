"""A network that int8 cannot hold, for what is done about that."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from slimseg.graph.fold import fold_scales
from slimseg.graph.graph import Graph


@pytest.fixture(scope="session")
def uneven(shapes_graph: Graph) -> Graph:
    """The same function as the trained network: one channel that the last upsampling reads is 1000 times as large."""
    graph = fold_scales(shapes_graph)
    layers = [graph.layer(node) for node in graph.layers()]
    made = [layer for layer in layers if isinstance(layer, nn.Conv2d)][3]
    read = [layer for layer in layers if isinstance(layer, nn.ConvTranspose2d)][1]
    assert made.bias is not None
    factors = torch.ones(made.out_channels)
    factors[int(made.bias.argmax())] = 1000  # one that is not dead
    made.weight.data *= factors.reshape(-1, 1, 1, 1)
    made.bias.data *= factors
    read.weight.data /= factors.reshape(-1, 1, 1, 1)
    return graph
