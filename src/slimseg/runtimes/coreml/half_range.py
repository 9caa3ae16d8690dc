"""Which layers' values outgrow float16, whose largest number is 65504: beyond it is infinity, and after it no mask.

Networks trained in float32 may do so without anybody noticing (prisma-net's do). The layers named here, and those that
read them, are to stay in float32, which Core ML computes on the CPU or GPU; all else stays on the Neural Engine.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from slimseg.graph.fold import fold_scales
from slimseg.graph.graph import Graph

LARGEST = 65504.0
MARGIN = 2.0  # other images may reach higher than those that were looked at


def overflowing(graph: Graph, images: Tensor) -> tuple[str, ...]:
    """Names of the layers whose values come within `MARGIN` of float16's largest, in order.

    Args:
        graph: the network, as it is given to `writer.write`.
        images: (N, channels, height, width), preprocessed; a handful of real ones.
    """
    folded = fold_scales(graph)
    watched = _Extremes(folded.module)
    with torch.no_grad():
        for image in images:
            watched.run(image[None])
    return tuple(node.name for node in folded.layers() if watched.largest.get(node.name, 0.0) > LARGEST / MARGIN)


class _Extremes(fx.Interpreter):
    """Runs a network and keeps the largest magnitude of every layer's values."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.largest: dict[str, float] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, Tensor) and value.is_floating_point():
            self.largest[n.name] = max(self.largest.get(n.name, 0.0), float(value.abs().max()))
        return value
