"""Dilated convolution -> the same convolution without dilation (article, section 3.4 (4)).

    Given   y = W ∗_d x,  W of shape (O, I, k, k), dilation d > 1, padding p
    Result  y ≈ W ∗ x,    dilation 1, padding p − (d − 1)(k − 1) / 2: the same weights, MACs and output shape

Padding by a layer of its own before the convolution counts as the convolution's.

The receptive field shrinks from d(k − 1) + 1 to k pixels a side, which values feel and only training with labels
makes up for. MACs stay, so all that the what-if shows is what dilation costs the runtime: rows that lie d apart.
Yu and Koltun, "Multi-Scale Context Aggregation by Dilated Convolutions", 2016, eq. 1.
"""

from __future__ import annotations

from torch import fx, nn

from slimseg.errors import Unsupported
from slimseg.graph import edit, ops
from slimseg.graph.graph import Graph, only_consumer, producer
from slimseg.graph.shapes import pair
from slimseg.results import Needs, Refusal
from slimseg.techniques.technique import Found, LayerTimes, Site


class Dilation:
    """Takes the holes out of dilated convolutions."""

    name = "convolution without dilation"
    section = "3.4"
    needs: Needs = "labels"
    paper = "Yu and Koltun, Multi-Scale Context Aggregation by Dilated Convolutions, 2016, eq. 1"

    def find(self, graph: Graph, times: LayerTimes) -> Found:
        sites: list[Site] = []
        refusals: list[Refusal] = []
        for node in graph.layers():
            layer = graph.layer_as(node, nn.Conv2d)
            if layer is None or not _is_dilated(layer):
                continue
            refusal = _refusal(graph, node, layer)
            if refusal:
                refusals.append(Refusal(self.name, node.name, refusal))
            else:
                sites.append(self._site(graph, node, layer))
        return Found(tuple(sites), tuple(refusals))

    def _site(self, graph: Graph, node: fx.Node, layer: nn.Conv2d) -> Site:
        _, _, height, width = graph.shape(node)
        (rows, columns), (down, across) = pair(layer.kernel_size), pair(layer.dilation)
        reason = (
            f"{rows}x{columns} {_kind(layer)} of {layer.in_channels} to {layer.out_channels} channels at "
            f"{height}x{width} reads pixels {max(down, across)} apart: the same weights "
            f"side by side see {rows}x{columns} pixels instead of {(rows - 1) * down + 1}x{(columns - 1) * across + 1}"
        )
        pad = _pad(graph, node)
        layers = (node.name,) if pad is None else (pad.name, node.name)
        return Site(self.name, layers, producer(pad or node).name, node.name, self.needs, reason)

    def apply(self, graph: Graph, site: Site) -> Graph:
        node = graph.node(site.target)
        layer = graph.layer_as(node, nn.Conv2d)
        if layer is None or not _is_dilated(layer) or (amounts := _padding(graph, node, layer)) is None:
            raise Unsupported(f"{site.target} is no dilated convolution that could do without")
        left, right, top, bottom = amounts
        symmetric = left == right and top == bottom
        dense = nn.Conv2d(
            layer.in_channels,
            layer.out_channels,
            pair(layer.kernel_size),
            pair(layer.stride),
            (top, left) if symmetric else 0,
            groups=layer.groups,
            bias=layer.bias is not None,
        )
        dense.load_state_dict(layer.state_dict())
        block = nn.Sequential(dense) if symmetric else nn.Sequential(ops.Pad(amounts), dense)
        return edit.replace(graph, [site.source], site.target, block)


def _is_dilated(layer: nn.Conv2d) -> bool:
    return any(dilation > 1 and kernel > 1 for dilation, kernel in zip(layer.dilation, layer.kernel_size, strict=True))


def _pad(graph: Graph, node: fx.Node) -> fx.Node | None:
    """The layer before a convolution that only pads for it with zeros."""
    before = producer(node)
    pad = graph.layer_as(before, ops.Pad)
    if pad is None or pad.value != 0 or any(pad.channels) or min(pad.padding) < 0:
        return None
    return before if only_consumer(before) is node and not edit.shared_with(graph, before) else None


def _padding(graph: Graph, node: fx.Node, layer: nn.Conv2d) -> tuple[int, int, int, int] | None:
    """The padding (left, right, top, bottom) that gives the same output size without dilation; None if none does."""
    pad = graph.layer_as(_pad(graph, node), ops.Pad)
    outside = (0, 0, 0, 0) if pad is None else pad.padding
    (rows, columns), (down, across), (vertical, horizontal) = map(
        pair, (layer.kernel_size, layer.dilation, layer.padding)
    )
    across_less, down_less = (across - 1) * (columns - 1), (down - 1) * (rows - 1)
    left, right, top, bottom = (
        amount + own - less
        for amount, own, less in zip(
            outside,
            (horizontal, horizontal, vertical, vertical),
            (across_less // 2, across_less - across_less // 2, down_less // 2, down_less - down_less // 2),
            strict=True,
        )
    )
    return (left, right, top, bottom) if min(left, right, top, bottom) >= 0 else None


def _refusal(graph: Graph, node: fx.Node, layer: nn.Conv2d) -> str | None:
    if _padding(graph, node, layer) is None:
        return (
            f"its padding of {pair(layer.padding)} with dilation {pair(layer.dilation)} has no counterpart that "
            "keeps the output's size"
        )
    other = edit.shared_with(graph, node)
    return f"its weights are shared with {other}" if other else None


def _kind(layer: nn.Conv2d) -> str:
    return "depthwise convolution" if layer.groups == layer.in_channels > 1 else "convolution"
