"""Depth to space moved last: layers that read one pixel at a time work on the small, deep tensor before it instead.

    Given   P(f(D(x))),  D depth to space of block s: (s·s·C, H, W) to (C, sH, sW); f channelwise, P a 1x1 convolution
    Result  D(P'(f'(x))),  f' with its constants s·s times, P' = diag(P, ..., P) of s·s blocks               (exact)
    Given   D_b(P(D_a(x)))
    Result  D_ab(P'(x)),  the outputs of P' in the order that one depth to space of block a·b needs          (exact)

P' multiplies s·s times as much, nearly all of it by zero. But if a map has fewer channels than a register has lanes,
those lanes were idle before, and the large map is written only once.
"""

from __future__ import annotations

from itertools import product

import torch
from torch import fx, nn

from slimseg.errors import Unsupported
from slimseg.graph import edit, ops
from slimseg.graph.graph import Graph, only_consumer, producer
from slimseg.results import Needs, Refusal
from slimseg.techniques.algebra.channelwise import rearranged, tail
from slimseg.techniques.technique import Found, Settings, Site

WIDEST = 256  # channels; with more, multiplying by zeros costs more than writing the maps


class LateDepthToSpace:
    """Moves depth to space after channelwise layers and 1x1 convolutions."""

    name = "depth to space last"
    needs: Needs = "nothing"
    paper = "Shi et al., Is the deconvolution layer the same as a convolutional layer?, 2016"
    settings = Settings

    def find(self, graph: Graph) -> Found:
        sites: list[Site] = []
        refusals: list[Refusal] = []
        taken: set[str] = set()
        for node in graph.layers():
            if graph.layer_as(node, ops.DepthToSpace) is None or node.name in taken:
                continue
            layers = _run(graph, node)
            if len(layers) == 1:
                continue
            refusal = _refusal(graph, layers)
            if refusal:
                refusals.append(Refusal(self.name, node.name, refusal))
                continue
            names = tuple(each.name for each in layers)
            taken.update(names)
            _, channels, height, width = graph.shape(node)
            reason = (
                f"{', '.join(names[1:3])}{' ...' if names[3:] else ''} treat each pixel alone: before {node.name} "
                f"{channels} channels of {height}x{width} are {graph.shape(producer(node))[1]} with fewer pixels"
            )
            sites.append(Site(self.name, names, producer(node).name, names[-1], self.needs, reason))
        return Found(tuple(sites), tuple(refusals))

    def apply(self, graph: Graph, site: Site) -> Graph:
        first = graph.node(site.layers[0])
        layers = _run(graph, first) if graph.layer_as(first, ops.DepthToSpace) else []
        if tuple(each.name for each in layers) != site.layers or len(layers) < 2 or _refusal(graph, layers):
            raise Unsupported(f"{site.layers[0]} is not a depth to space that is followed by {site.target}")
        return edit.replace(graph, [site.source], site.target, nn.Sequential(*_moved(graph, layers)))


def _run(graph: Graph, node: fx.Node) -> list[fx.Node]:
    """Depth to space and what follows it: channelwise layers, a 1x1 convolution, more of them, a depth to space."""
    before = tail(graph, node)
    run = [node, *before]
    reader = only_consumer(run[-1])
    if reader is None or _pointwise(graph, reader) is None:
        return run
    run += [reader, *tail(graph, reader)]
    reader = only_consumer(run[-1])
    if reader is not None and graph.layer_as(reader, ops.DepthToSpace) and not edit.shared_with(graph, reader):
        run.append(reader)
    return run


def _moved(graph: Graph, run: list[fx.Node]) -> list[nn.Module]:
    block = _block(graph, run[0])
    second = _block(graph, run[-1])
    channels = graph.shape(run[0])[1]
    order = list(range(channels)) * block**2
    result: list[nn.Module] = []
    for node in run[1:]:
        layer = graph.layer(node)
        if isinstance(layer, nn.Conv2d):
            rows = _rows(layer.out_channels, block, second)
            result.append(_block_diagonal(layer, block**2, rows))
            order = [row % layer.out_channels for row in rows]
        elif isinstance(layer, ops.DepthToSpace):
            continue
        else:
            result.append(rearranged(layer, order))
    return [*result, ops.DepthToSpace(block * second)]


def _rows(channels: int, first: int, second: int) -> list[int]:
    """For each output of the new convolution its index among the outputs (row, column, old channel) of diag(P, ..., P).

    An old channel is itself (row, column, channel) of the second block. One depth to space of both blocks needs the
    order (first row, second row, first column, second column, channel).
    """
    count = channels // second**2
    return [
        ((i * first + j) * second**2 + (k * second + m)) * count + channel
        for i, k, j, m in product(range(first), range(second), range(first), range(second))
        for channel in range(count)
    ]


def _block_diagonal(layer: nn.Conv2d, times: int, rows: list[int]) -> nn.Conv2d:
    wide = nn.Conv2d(layer.in_channels * times, layer.out_channels * times, 1, bias=layer.bias is not None)
    blocks = torch.kron(torch.eye(times), layer.weight.detach()[:, :, 0, 0])
    wide.weight = nn.Parameter(blocks[rows][:, :, None, None].contiguous())
    if layer.bias is not None:
        wide.bias = nn.Parameter(layer.bias.detach().repeat(times)[rows])
    return wide


def _block(graph: Graph, node: fx.Node) -> int:
    layer = graph.layer_as(node, ops.DepthToSpace)
    return 1 if layer is None else layer.block


def _pointwise(graph: Graph, node: fx.Node) -> nn.Conv2d | None:
    layer = graph.layer_as(node, nn.Conv2d)
    plain = layer is not None and (layer.kernel_size, layer.stride, layer.groups) == ((1, 1), (1, 1), 1)
    return layer if plain and layer is not None and layer.padding in ((0, 0), 0) else None


def _refusal(graph: Graph, run: list[fx.Node]) -> str | None:
    for node in run:
        if other := edit.shared_with(graph, node):
            return f"{node.name} shares its layer with {other}"
        layer = _pointwise(graph, node)
        if layer is None:
            continue
        wide = max(layer.in_channels, layer.out_channels) * _block(graph, run[0]) ** 2
        if wide > WIDEST:
            return f"{node.name} would have {wide} channels before the depth to space, with nearly all weights zero"
        if layer.out_channels > layer.in_channels:
            return f"depth to space after {node.name} would move more values than before"
    return None
