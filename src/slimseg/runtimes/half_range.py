"""Finds layers whose values overflow float16: above its largest number, 65504, they become infinite and the mask wrong.

In networks trained in float32 such values may go unnoticed (prisma-net has some). Apple's Neural Engine and the GPUs of
phones compute in float16. Where a file can say so, the layers found here, and those that read them, stay in float32,
which is computed on the CPU or GPU. The GPU delegate of an Android phone computes all layers alike.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from slimseg.graph.fold import fold_scales
from slimseg.graph.graph import Graph

LARGEST = 65504.0
MARGIN = 2.0  # safety factor: other images may give larger values than the examined ones


def overflowing(graph: Graph, images: Tensor) -> tuple[str, ...]:
    """Names of the layers, in order, with values above float16's largest number divided by `MARGIN`.

    Args:
        graph: the network, the same as for `writer.write`.
        images: (N, channels, height, width), preprocessed; a few real images suffice.
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
