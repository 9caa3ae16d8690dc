"""Checks that a network computes every image of a batch by itself: training feeds several at once.

A network that was exported for one image may not: a softmax over all pixels of the batch, for example, is the same as
one over the pixels of an image as long as there is only one image.
"""

from __future__ import annotations

import torch

from slimseg.errors import Unsupported
from slimseg.graph.graph import Graph
from slimseg.graph.noise import noise

_IMAGES = 2
_TOLERANCE = 1e-2  # share of the largest value; kernels for one and for several images differ by rounding only


@torch.no_grad()
def check(graph: Graph) -> None:
    """Compare a batch of two random images with each of them alone.

    Raises:
        Unsupported: the network mixes them, or accepts one image only.
    """
    batch = noise(graph, _IMAGES)
    alone = torch.cat([graph(image) for image in torch.split(batch, 1)])
    try:
        together = graph(batch)
    except Exception:  # of any operator that a file may contain
        together = None
    if together is None or together.shape != alone.shape or _differ(together, alone):
        raise Unsupported(f"{graph.name} was made for one image at a time: it mixes the images of a batch")


def _differ(first: torch.Tensor, second: torch.Tensor) -> bool:
    if not first.is_floating_point():  # masks: pixels on borders between classes may differ
        return bool((first != second).double().mean() > _TOLERANCE)
    return bool((first - second).abs().max() > _TOLERANCE * second.abs().max())
