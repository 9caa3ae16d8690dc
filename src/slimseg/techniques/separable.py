"""Convolution -> depthwise + pointwise, or 1x1 -> k×k -> 1x1 on fewer channels (article, section 3.1).

    Given   y = W ∗ x,   W of shape (O, I, k, k), any stride and dilation, one group
    Result  y ≈ Σ_r P_r · (D_r ∗ x),   D_r depthwise (I, 1, k, k), P_r pointwise (O, I, 1, 1), r = 1..R    "rank R"
    Result  y ≈ U · (G ∗ (Vᵀ · x)),    G a convolution of fewer channels, see algebra/low_rank.py    "1x1, r to s, 1x1"

For each input channel i the slice W[:, i] is an O × k² matrix; its truncated singular value decomposition gives the
R pairs nearest to it in the least-squares sense (Guo et al., "Network Decoupling", 2018, eq. 5; R = k² is exact):

    W[:, i] = Σ_r σ_r u_r v_rᵀ,    P_r[:, i] = √σ_r u_r,    D_r[i] = √σ_r v_r

MACs per output pixel fall from O·I·k² to R·I·(k² + O). The what-if measures whether the time falls, too: depthwise
convolutions move many bytes for few MACs, so that the second form can be faster.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import fx, nn

from slimseg.blocks.separable import SeparableConv2d
from slimseg.errors import Unsupported
from slimseg.graph import edit, ops
from slimseg.graph.graph import Graph, producer
from slimseg.graph.shapes import pair
from slimseg.results import Needs, Refusal
from slimseg.techniques.algebra.low_rank import Ranks, low_rank, macs, ranks_worth_trying
from slimseg.techniques.technique import Found, Settings, Site

RANKS = (1, 2)
MIN_CHANNELS = 8


@dataclass(frozen=True)
class Factors(Settings):
    """Either a number of depthwise + pointwise pairs, or the input and output channels of the core between two 1x1."""

    pairs: int = 0
    ranks: Ranks | None = None

    @property
    def words(self) -> str:
        return f"rank {self.pairs}" if self.ranks is None else f"1x1, {self.ranks[0]} to {self.ranks[1]}, 1x1"


class Separable:
    """Replaces k×k convolutions, k > 1."""

    name = "separable convolution"
    needs: Needs = "images"
    paper = (
        "Howard et al., MobileNets, 2017, section 3.1; Guo et al., Network Decoupling, 2018, eq. 5; "
        "Kim et al., Compression of Deep Convolutional Neural Networks, 2016, eq. 3"
    )
    settings = Factors

    def find(self, graph: Graph) -> Found:
        sites: list[Site] = []
        refusals: list[Refusal] = []
        for node in graph.layers():
            convolution = graph.layer_as(node, nn.Conv2d)
            if convolution is None or convolution.kernel_size == (1, 1) or ops.is_depthwise(convolution):
                continue
            refusal = _refusal(graph, node, convolution)
            if refusal:
                refusals.append(Refusal(self.name, node.name, refusal))
            else:
                sites.extend(_sites(self.name, graph, node, convolution))
        return Found(tuple(sites), tuple(refusals))

    def apply(self, graph: Graph, site: Site) -> Graph:
        node = graph.node(site.target)
        convolution = graph.layer_as(node, nn.Conv2d)
        factors = site.settings_as(Factors)
        if convolution is None or convolution.groups != 1:
            raise Unsupported(f"{site.target} is not a convolution that {self.name} ({factors.words}) can replace")
        return edit.replace(graph, [site.source], site.target, _block(convolution, factors))


def _block(convolution: nn.Conv2d, factors: Factors) -> nn.Module:
    """The block that replaces a convolution."""
    if factors.ranks is None:
        return factorise(convolution, factors.pairs)
    return low_rank(convolution, factors.ranks)


def factorise(convolution: nn.Conv2d, rank: int) -> SeparableConv2d:
    """The `rank` depthwise + pointwise pairs nearest to a convolution's weights (Frobenius norm)."""
    weight = convolution.weight.detach()
    block = SeparableConv2d(
        convolution.in_channels,
        convolution.out_channels,
        pair(convolution.kernel_size),
        pair(convolution.stride),
        pair(convolution.padding),
        pair(convolution.dilation),
        convolution.bias is not None,
        rank,
    )
    per_input = weight.permute(1, 0, 2, 3).flatten(2)  # (I, O, k²)
    u, sigma, v = torch.linalg.svd(per_input, full_matrices=False)
    root = sigma.sqrt()
    with torch.no_grad():
        for r, (depthwise, pointwise) in enumerate(block.pairs()):
            pointwise.weight.copy_((u[:, :, r] * root[:, None, r]).T[:, :, None, None])
            depthwise.weight.copy_((v[:, r, :] * root[:, r, None]).reshape(depthwise.weight.shape))
            if pointwise.bias is not None and convolution.bias is not None:
                pointwise.bias.copy_(convolution.bias)
    return block


def _sites(technique: str, graph: Graph, node: fx.Node, convolution: nn.Conv2d) -> list[Site]:
    _, _, height, width = graph.shape(node)
    rows, columns = pair(convolution.kernel_size)
    full = convolution.in_channels * convolution.out_channels * rows * columns
    what = (
        f"{rows}x{columns} convolution of {convolution.in_channels} to {convolution.out_channels} channels at "
        f"{height}x{width}"
    )
    return [
        Site(
            technique, (node.name,), producer(node).name, node.name, "images",
            f"{what}: {full / needed:.1f}x fewer MACs as {form}", factors,
        )
        for factors, form, needed in _forms(convolution) if needed < full
    ]  # fmt: skip


def _forms(convolution: nn.Conv2d) -> list[tuple[Factors, str, int]]:
    """(settings, name for people, MACs per output pixel) of every form worth timing."""
    kernel = math.prod(pair(convolution.kernel_size))
    pair_macs = convolution.in_channels * (kernel + convolution.out_channels)
    pairs = [
        (Factors(rank), "depthwise + pointwise" + (f", {rank} pairs" if rank > 1 else ""), rank * pair_macs)
        for rank in RANKS
    ]
    narrow = [
        (Factors(ranks=(r, s)), f"{r} to {s} channels between two 1x1 convolutions", macs(convolution, (r, s)))
        for r, s in ranks_worth_trying(convolution)
    ]
    return [*pairs, *narrow]


def _refusal(graph: Graph, node: fx.Node, convolution: nn.Conv2d) -> str | None:
    if convolution.groups > 1:
        return f"it already works in {convolution.groups} groups"
    if min(convolution.in_channels, convolution.out_channels) < MIN_CHANNELS:
        return (
            f"{convolution.in_channels} to {convolution.out_channels} channels are too few for a depthwise layer to "
            "save time"
        )
    other = edit.shared_with(graph, node)
    return f"its weights are shared with {other}" if other else None
