"""Random input for a network."""

from __future__ import annotations

import torch
from torch import Tensor

from slimseg.graph.graph import Graph


def noise(graph: Graph, images: int = 1) -> Tensor:
    """Normally distributed values (images, channels, height, width), the same at every call."""
    return torch.randn(images, *graph.input_shape[1:], generator=torch.Generator().manual_seed(0))
