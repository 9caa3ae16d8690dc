"""A resize moved after the layers that follow it (article, section 3.2).

    Given   y = f(U(x)),   U enlarges h×w to H×W; f a chain of convolutions of stride 1 that keep the size, and of
                           channelwise layers: 1x1 -> ReLU -> 1x1, or a 3x3 first
    Result  y ≈ U(f(x))    f on h·w pixels, U on the chain's output

A 1x1 convolution alone commutes with a resize (head.py and concat_to_sum.py use this). An activation does not: if
neighbouring pixels have different signs, the mean of their ReLUs is not the ReLU of their mean. A chain of 1x1s differs
only there, at edges between classes. The receptive field of a 3x3 grows by H/h, so it has to be trained anew. The chain
ends where the resize has the fewest channels to enlarge, for example after a network's last layer, the classifier.
Zhao et al., "ICNet for Real-Time Semantic Segmentation", 2018, section 3.2: the expensive layers at low resolution.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Literal

from torch import fx, nn

from slimseg.errors import Unsupported
from slimseg.graph import edit, ops
from slimseg.graph.graph import Graph, only_consumer, producer
from slimseg.results import Needs, Refusal
from slimseg.techniques.algebra.channelwise import is_channelwise
from slimseg.techniques.algebra.low_resolution import keeps_size
from slimseg.techniques.technique import Found, Settings, Site


@dataclass(frozen=True)
class First(Settings):
    layers: Literal["pointwise", "every"]  # the convolutions that may move before the resize

    @property
    def words(self) -> str:
        return {"pointwise": "1x1 layers first", "every": "all layers first"}[self.layers]


POINTWISE, EVERY = First("pointwise"), First("every")


class LateResize:
    """Moves the layers after a resize before it."""

    name = "resize behind what follows it"
    needs: Needs = "images"
    paper = "Zhao et al., ICNet for Real-Time Semantic Segmentation, 2018, section 3.2"
    settings = First

    def find(self, graph: Graph) -> Found:
        sites: list[Site] = []
        refusals: list[Refusal] = []
        for node in graph.layers():
            if not _enlarges(graph, node):
                continue
            if other := edit.shared_with(graph, node):
                refusals.append(Refusal(self.name, node.name, f"its layer is shared with {other}"))
                continue
            chains = {first: _chain(graph, node, first) for first in (POINTWISE, EVERY)}
            if chains[EVERY] == chains[POINTWISE]:
                del chains[EVERY]
            sites += [self._site(graph, node, chain, first) for first, chain in chains.items() if chain]
        return Found(tuple(sites), tuple(refusals))

    def _site(self, graph: Graph, resize: fx.Node, chain: list[fx.Node], first: First) -> Site:
        names = tuple(node.name for node in (resize, *chain))
        before, after = graph.shape(producer(resize)), graph.shape(resize)
        fewer, left = after[2] * after[3] / (before[2] * before[3]), graph.shape(chain[-1])[1]
        reason = (
            f"{resize.name} enlarges {before[2]}x{before[3]} before {len(chain)} layers up to {names[-1]}: before "
            f"the resize they have {fewer:.1f}x fewer pixels, and it enlarges {left} channels instead of {after[1]}"
        )
        return Site(self.name, names, producer(resize).name, names[-1], self.needs, reason, first)

    def apply(self, graph: Graph, site: Site) -> Graph:
        resize = graph.node(site.layers[0])
        chain = _chain(graph, resize, site.settings_as(First)) if _enlarges(graph, resize) else []
        if tuple(node.name for node in chain) != site.layers[1:] or not chain:
            raise Unsupported(f"{site.layers[0]} is not a resize that can follow {site.target}")
        layers = [copy.deepcopy(graph.module.get_submodule(str(node.target))) for node in (*chain, resize)]
        return edit.replace(graph, [site.source], site.target, nn.Sequential(*layers))


def _chain(graph: Graph, resize: fx.Node, first: First) -> list[fx.Node]:
    """The layers to move before the resize: up to the last one with the fewest channels."""
    run: list[fx.Node] = []
    node = only_consumer(resize)
    while node is not None and node.op == "call_module" and _may_come_first(graph, node, first):
        run.append(node)
        node = only_consumer(node)
    channels = [graph.shape(resize)[1], *(graph.shape(each)[1] for each in run)]
    end = max((index for index, count in enumerate(channels) if count == min(channels)), default=0)
    run = run[:end]
    # Linear 1x1 layers alone commute with the resize: head.py moves them, exactly.
    exact = not any(_is_curved(graph, each) for each in run)
    return [] if exact or not any(graph.layer_as(each, nn.Conv2d) for each in run) else run


def _may_come_first(graph: Graph, node: fx.Node, first: First) -> bool:
    if len(graph.shape(node)) != 4 or edit.shared_with(graph, node):
        return False
    layer = graph.layer(node)
    if isinstance(layer, nn.Conv2d):
        return keeps_size(layer) and (first == EVERY or layer.kernel_size == (1, 1))
    return is_channelwise(graph, node)


def _is_curved(graph: Graph, node: fx.Node) -> bool:
    """Whether a layer does not commute with a resize."""
    layer = graph.layer(node)
    if isinstance(layer, nn.Conv2d):
        return layer.kernel_size != (1, 1)
    return not isinstance(layer, (nn.BatchNorm2d, ops.Affine))


def _enlarges(graph: Graph, node: fx.Node) -> bool:
    if graph.layer_as(node, ops.Resize) is None:
        return False
    before, after = graph.shape(producer(node)), graph.shape(node)
    return 1 < before[2] * before[3] < after[2] * after[3]
