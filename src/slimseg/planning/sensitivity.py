"""How much an edit hurts before any recovery: pixels that change class when it alone is made."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from slimseg.graph.graph import Graph
from slimseg.progress import Progress
from slimseg.techniques import Site, named


def damage(graph: Graph, sites: Sequence[Site], images: Tensor, progress: Progress) -> dict[Site, float]:
    """Percent of pixels (0-100) that change class, by site, over preprocessed `images` (N, 3, H, W)."""
    before = masks(graph, images)
    result = {}
    for site in progress.track(sites, "measuring sensitivity"):
        after = masks(named(site.technique).apply(graph, site), images, before.shape[1:])
        result[site] = 100 * float((before != after).float().mean())
    return result


@torch.inference_mode()
def masks(graph: Graph, images: Tensor, size: Sequence[int] | None = None) -> Tensor:
    """Class indices (N, H, W) at the output's own size, or at `size`."""
    found = []
    for image in images.split(4):
        output = graph(image.contiguous(memory_format=torch.channels_last))
        if output.ndim == 4 and size is not None and output.shape[2:] != tuple(size):
            output = F.interpolate(output, tuple(size), mode="bilinear", align_corners=False)
        found.append(_classes(graph, output))
    return torch.cat(found)


def _classes(graph: Graph, output: Tensor) -> Tensor:
    if output.ndim == 3:
        return output
    if output.shape[1] == 1:
        return (output[:, 0] > (0.5 if graph.description.output_kind == "probabilities" else 0.0)).long()
    return output.argmax(1)
