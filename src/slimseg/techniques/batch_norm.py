"""Batch norm instead of a norm with an image's own statistics: layer, group, instance or RMS norm.

    Given   y = γ (x − μ(x)) / σ(x) + β,   μ(x) and σ(x) computed from x: over the channels of a pixel (layer norm),
                                           over a group of channels, or over the pixels of a channel (instance norm)
    Result  y ≈ γ' (x − m) / s + β',       m and s constants of each channel: a batch norm

A batch norm is folded into a layer beside it and then takes no time, while a layer norm is half a dozen passes over the
map. Per channel, the line through x and y with the least squared error has the slope cov(x, y) / var(x):

    m, s² = mean and variance of x,   γ' = cov(x, y) / s,   β' = mean of y

They are computed from the network's values for an image of noise. Recovery measures m and s again on the user's images
(training/normalisation.py), and mimicry trains γ' and β'. A batch norm cannot follow an image whose contrast differs
from that of the others, and it does not subtract the mean over channels.
Yao et al., "Leveraging Batch Normalization for Vision Transformers", 2021; Guo et al., "SLAB", 2024.
"""

from __future__ import annotations

import torch
from torch import Tensor, fx, nn

from slimseg.errors import Unsupported
from slimseg.graph import edit, ops
from slimseg.graph.features import Features
from slimseg.graph.graph import Graph, only_consumer, producer
from slimseg.graph.noise import noise
from slimseg.results import Needs, Refusal
from slimseg.techniques.technique import Found, Settings, Site, dimensions

LEAST_PIXELS = 16  # a map of fewer pixels gives no statistics, and its norm takes no time


class BatchNorm:
    """Replaces norms whose statistics are computed from each image by batch norms."""

    name = "batch norm instead of layer norm"
    needs: Needs = "images"
    paper = "Yao et al., Leveraging Batch Normalization for Vision Transformers, 2021"
    settings = Settings

    def find(self, graph: Graph) -> Found:
        sites: list[Site] = []
        refusals: list[Refusal] = []
        for node in graph.layers():
            if not _is_norm_of_map(graph, node):
                continue
            _, _, height, width = graph.shape(node)
            if height * width < LEAST_PIXELS:
                refusals.append(Refusal(self.name, node.name, f"{height}x{width} pixels have no steady statistics"))
            else:
                sites.append(self._site(graph, node))
        return Found(tuple(sites), tuple(refusals))

    def _site(self, graph: Graph, node: fx.Node) -> Site:
        norm = [node, *_learnt(graph, node)]
        source, reader = _host(graph, node) or producer(node), _reader(graph, norm[-1])
        reason = (
            f"{node.name} computes its statistics from the {dimensions(graph, node)} values of each image: those of a "
            "batch norm are constants, and are folded into the weights beside it"
        )
        names = tuple(each.name for each in norm)
        return Site(self.name, names, source.name, (reader or norm[-1]).name, self.needs, reason)

    def apply(self, graph: Graph, site: Site) -> Graph:
        site.settings_as(Settings)
        node = graph.node(site.layers[0])
        if not _is_norm_of_map(graph, node):
            raise Unsupported(f"{site.layers[0]} is not a norm of a map with statistics of its own")
        end = (node, *_learnt(graph, node))[-1]
        x, y = _values(graph, producer(node), end)
        return edit.replace(graph, [producer(node).name], end.name, nn.Sequential(fitted(x, y)))


def _is_norm_of_map(graph: Graph, node: fx.Node) -> bool:
    layer = graph.layer_as(node, ops.Normalise)
    return layer is not None and layer.dims in ((1,), (2, 3), (1, 2, 3)) and len(graph.shape(node)) == 4


def _learnt(graph: Graph, node: fx.Node) -> list[fx.Node]:
    """The layer with the norm's scale and shift, if there is one that nothing else calls."""
    after = only_consumer(node)
    if after is None or graph.layer_as(after, ops.Affine) is None or graph.shape(after) != graph.shape(node):
        return []
    return [after]


def _host(graph: Graph, node: fx.Node) -> fx.Node | None:
    """The value before the layer that a batch norm would be folded into, if that is the layer before it."""
    before = producer(node)
    takes = graph.layer_as(before, ops.MIXING) is not None and only_consumer(before) is node
    return producer(before) if takes and not edit.shared_with(graph, before) else None


def _reader(graph: Graph, node: fx.Node) -> fx.Node | None:
    """The convolution behind, if a batch norm would be folded into it."""
    reader = only_consumer(node)
    return reader if reader is not None and graph.layer_as(reader, nn.Conv2d) is not None else None


@torch.no_grad()
def _values(graph: Graph, before: fx.Node, after: fx.Node) -> tuple[Tensor, Tensor]:
    """The values of two nodes, (C, pixels), for noise."""
    part = edit.ending_at(graph, after.name)
    image = noise(graph)
    y, known = Features(part.module, [before.name])(image)
    x = image if before is graph.input else known[before.name]
    return x[0].flatten(1), y[0].flatten(1)


@torch.no_grad()
def fitted(x: Tensor, y: Tensor) -> nn.BatchNorm2d:
    """The batch norm whose output for x is nearest to y; both (C, values)."""
    norm = nn.BatchNorm2d(len(x))
    norm.running_mean, norm.running_var = x.mean(1), x.var(1, correction=0)
    covariance = ((x - x.mean(1, keepdim=True)) * (y - y.mean(1, keepdim=True))).mean(1)
    norm.weight.copy_(covariance * torch.rsqrt(norm.running_var + norm.eps))
    norm.bias.copy_(y.mean(1))
    return norm.eval()
