"""What the first layers imply about preprocessing: a network that rescales its input itself takes bytes."""

from __future__ import annotations

import torch

from slimseg.graph import ops
from slimseg.graph.graph import Graph, only_consumer
from slimseg.graph.preprocessing import Preprocessing

_OF_BYTES = 0.05  # a factor this small maps 0-255 to about 1; a factor for inputs in [0, 1] is larger


def inferred(graph: Graph) -> Preprocessing:
    """Unchanged bytes if the graph itself begins by scaling them down, else the default: bytes to [0, 1]."""
    first = only_consumer(graph.input)
    layer = graph.layer_as(first, ops.Affine)
    if layer is None or layer.scale is None or float(torch.as_tensor(layer.scale).abs().max()) > _OF_BYTES:
        return graph.description.preprocessing
    graph.notes = (*graph.notes, f"{first} scales the image itself, so the network gets unchanged bytes 0-255")
    return Preprocessing.of(mean=0.0, std=1.0)
