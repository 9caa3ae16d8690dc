"""Measures the damage of an edit: the pixels that change class if it alone is applied, before any recovery."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from slimseg.graph.features import Features
from slimseg.graph.graph import Graph
from slimseg.graph.output import as_map
from slimseg.progress import Progress
from slimseg.techniques import Site, named
from slimseg.training import device


@torch.inference_mode()
def damage(
    graph: Graph, sites: Sequence[Site], images: Tensor, progress: Progress, until: float = math.inf
) -> dict[Site, float]:
    """Percent of pixels (0-100) that change class, by site, over preprocessed `images` (N, 3, H, W).

    Layers before an edit are computed once and reused for every edited network. Sites that are not measured by `until`,
    a `time.monotonic()`, are left out.
    """
    names = [node.name for node in graph.layers()]
    with device.on_best(graph.module) as where:
        images = images.to(where)
        output, known = Features(graph.module, names)(images.contiguous(memory_format=torch.channels_last))
    before = classes(graph, output)
    result = {}
    for site in progress.track(sites, "measuring sensitivity"):
        if time.monotonic() >= until:
            break
        edited = named(site.technique).apply(graph, site)
        changed = _downstream(graph, site)
        given = {name: value for name, value in known.items() if name not in changed}
        with device.on_best(edited.module):
            after, _ = Features(edited.module, ())(images, given)
        result[site] = 100 * float((before != classes(edited, after)).float().mean())
    return result


def _downstream(graph: Graph, site: Site) -> set[str]:
    """Names of the nodes whose values the edit may change."""
    changed = set(site.layers) | {site.target}
    for node in graph.layers():
        if any(source.name in changed for source in node.all_input_nodes):
            changed.add(node.name)
    return changed


@torch.inference_mode()
def masks(graph: Graph, images: Tensor, size: Sequence[int] | None = None) -> Tensor:
    """Class indices (N, H, W) at the output's own size, or at `size`."""
    found = []
    with device.on_best(graph.module) as where:
        for image in torch.split(images, 4):
            output = as_map(graph, graph(image.to(where).contiguous(memory_format=torch.channels_last)))
            if output.ndim == 4 and size is not None and output.shape[2:] != tuple(size):
                output = F.interpolate(output, tuple(size), mode="bilinear", align_corners=False)
            found.append(_decided(graph, output).cpu())
    return torch.cat(found)


def classes(graph: Graph, output: Tensor) -> Tensor:
    """Class indices (N, H, W) from a network's output of any kind, also if it is flattened."""
    return _decided(graph, as_map(graph, output))


def _decided(graph: Graph, output: Tensor) -> Tensor:
    if output.ndim == 3:
        return output
    if output.shape[1] == 1:
        return (output[:, 0] > (0.5 if graph.description.output_kind == "probabilities" else 0.0)).long()
    return output.argmax(1)
