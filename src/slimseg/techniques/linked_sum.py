"""Maps added instead of concatenated before a k×k convolution (article, section 3.4 (1): memory access).

    Given   y = W ∗ [a; b],               W of shape (O, A + B, k, k), k > 1; a, b perhaps results of a resize U
    Result  y ≈ Q ∗ (M_a·a + M_b·b),      M_a (r, A), M_b (r, B) 1x1, Q (O, r, k, k), r < A + B channels

The rows of M = [M_a, M_b] are the r leading right singular vectors of W unfolded to (O·k², A + B), and Q = W·Mᵀ, which
is the best approximation of W with r channels (Eckart and Young, 1936). A 1x1 commutes with a resize, so M_a works on
the map before it (see concat_to_sum.py). MACs per output pixel fall from O·(A + B)·k² to (A + B)·r·stride² + O·r·k².
LinkNet (Chaurasia and Culurciello, 2017) has such decoders: it adds skip connections, which U-Net concatenates.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import fx, nn

from slimseg.errors import Unsupported
from slimseg.graph import edit, ops
from slimseg.graph.graph import Graph, producer
from slimseg.graph.region import region
from slimseg.graph.shapes import pair
from slimseg.results import Needs, Refusal
from slimseg.techniques.concat_to_sum import joined, parts_of, refusal_of, sum_of
from slimseg.techniques.technique import Found, Settings, Site, dimensions

STEP = 8
PARTS = (2, 4)  # divisors: a half or a quarter of the channels is kept


@dataclass(frozen=True)
class Rank(Settings):
    channels: int

    @property
    def words(self) -> str:
        return f"{self.channels} channels"


class LinkedSum:
    """Replaces a concatenation and a k×k convolution by 1x1s, a sum and a k×k convolution of fewer channels."""

    name = "added instead of concatenated"
    needs: Needs = "images"
    paper = "Chaurasia and Culurciello, LinkNet, 2017, section III"
    settings = Rank

    def find(self, graph: Graph) -> Found:
        sites: list[Site] = []
        refusals: list[Refusal] = []
        for node, reader, layer in joined(graph):
            if layer.kernel_size == (1, 1):
                continue
            if refusal := refusal_of(graph, node, reader, layer):
                refusals.append(Refusal(self.name, node.name, refusal))
            else:
                sites += [self._site(graph, node, reader, layer, rank) for rank in _ranks(layer)]
        return Found(tuple(sites), tuple(refusals))

    def _site(self, graph: Graph, concat: fx.Node, reader: fx.Node, layer: nn.Conv2d, rank: int) -> Site:
        resized = (part.resize.name for part in parts_of(graph, concat, _first(layer, rank)) if part.resize)
        names = (*dict.fromkeys(resized), concat.name, reader.name)
        rows, columns = pair(layer.kernel_size)
        reason = (
            f"{rows}x{columns} convolution of {dimensions(graph, concat)}, concatenated: {rank} channels that "
            f"sum them need {_full(layer) / _macs(layer, rank):.1f}x fewer MACs"
        )
        source, _ = region(graph, names)
        return Site(self.name, names, source, reader.name, self.needs, reason, Rank(rank))

    def apply(self, graph: Graph, site: Site) -> Graph:
        reader = graph.node(site.target)
        layer, rank = graph.layer_as(reader, nn.Conv2d), site.settings_as(Rank)
        concat = producer(reader)
        if layer is None or rank.channels not in _ranks(layer):
            raise Unsupported(f"{site.target} is not a convolution that can be factorised into {rank.words}")
        if graph.layer_as(concat, ops.Concat) is None or refusal_of(graph, concat, reader, layer):
            raise Unsupported(f"{site.target} is not a convolution of concatenated maps")
        first, second = factorised(layer, rank.channels)
        parts = parts_of(graph, concat, first)
        block = sum_of(graph, parts, first)
        output = block.graph.output_node()
        with block.graph.inserting_before(output):
            block.add_module("conv", second)
            output.args = (block.graph.call_module("conv", output.args),)
        block.recompile()
        return edit.replace(graph, [part.value.name for part in parts], site.target, block)


def factorised(layer: nn.Conv2d, rank: int) -> tuple[nn.Conv2d, nn.Conv2d]:
    """A 1x1 to `rank` channels and a convolution that reads them, together nearest to `layer` (Frobenius norm)."""
    weight = layer.weight.detach().double()
    by_input = weight.transpose(0, 1).flatten(1)  # (I, O·k²)
    vectors = torch.linalg.eigh(by_input @ by_input.T).eigenvectors[:, -rank:]  # (I, rank), orthonormal
    first = _first(layer, rank)
    second = nn.Conv2d(
        rank,
        layer.out_channels,
        pair(layer.kernel_size),
        pair(layer.stride),
        pair(layer.padding),
        pair(layer.dilation),
        bias=layer.bias is not None,
    )
    with torch.no_grad():
        first.weight.copy_(vectors.T[:, :, None, None])
        second.weight.copy_(torch.einsum("oihw,ir->orhw", weight, vectors))
        if layer.bias is not None and second.bias is not None:
            second.bias.copy_(layer.bias)
    return first, second


def _first(layer: nn.Conv2d, rank: int) -> nn.Conv2d:
    return nn.Conv2d(layer.in_channels, rank, 1, bias=False)


def _ranks(layer: nn.Conv2d) -> list[int]:
    ranks = dict.fromkeys(max(STEP, round(layer.in_channels / part / STEP) * STEP) for part in PARTS)
    return [rank for rank in ranks if _macs(layer, rank) < _full(layer)]


def _full(layer: nn.Conv2d) -> int:
    rows, columns = pair(layer.kernel_size)
    return layer.out_channels * layer.in_channels * rows * columns


def _macs(layer: nn.Conv2d, rank: int) -> int:
    """MACs per output pixel, not counting the saving of a 1x1 that moves before a resize."""
    (rows, columns), (down, across) = pair(layer.kernel_size), pair(layer.stride)
    return layer.in_channels * rank * down * across + layer.out_channels * rank * rows * columns
