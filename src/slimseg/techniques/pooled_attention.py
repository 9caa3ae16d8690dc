"""Attention on fewer tokens: keys and values, or queries, on means of r×r pixels.

    Given   y = softmax(s·Q(x) K(z)ᵀ) V(z),   x, z maps whose pixels are tokens; Q, K, V 1x1 convolutions
    Result  y ≈ softmax(s·Q(x) K(Pz)ᵀ) V(Pz)            "keys and values by r"   scores and products fall to 1/r²
    Result  y ≈ U(softmax(s·Q(Px) K(z)ᵀ) V(z))          "queries by r"           so do Q and the 1x1 layer behind

P is the mean of r×r pixels, U the bilinear resize back. Means and resizes commute with 1x1 convolutions, so K and V
work on Pz, and the layer behind works before U. The first form is exact if z is constant within r×r pixels: r² equal
keys get r² equal shares of the softmax, which add up to that of their mean. The weights are unchanged.
Wang et al., "PVT v2: Improved Baselines with Pyramid Vision Transformer", 2022, pools keys and values; Fan et al.,
"Multiscale Vision Transformers", 2021, pools queries, too.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import fx, nn

from slimseg.errors import Unsupported
from slimseg.graph import edit, ops
from slimseg.graph.fold import host
from slimseg.graph.graph import Graph, needed, only_consumer, producer
from slimseg.graph.region import region
from slimseg.graph.shapes import pair
from slimseg.results import Needs, Refusal
from slimseg.techniques.algebra.channelwise import tail
from slimseg.techniques.technique import Found, Settings, Site, dimensions

RATIOS = (2, 4)
LEAST_SIDE = 2  # pixels of a pooled map


@dataclass(frozen=True)
class Pooled(Settings):
    what: Literal["keys and values", "queries"]
    by: int  # pixels a side

    @property
    def words(self) -> str:
        return f"{self.what} by {self.by}"


@dataclass(frozen=True)
class Part:
    """What an edit replaces: the layers from the pooled maps to the one before the resize back."""

    pooled: tuple[fx.Node, ...]  # the maps that are pooled
    layers: tuple[fx.Node, ...]
    as_given: tuple[fx.Node, ...]  # the other maps that attention reads


class PooledAttention:
    """Pools what attention reads."""

    name = "attention on fewer tokens"
    needs: Needs = "images"
    paper = "Wang et al., PVT v2, 2022; Fan et al., Multiscale Vision Transformers, 2021"
    settings = Pooled

    def find(self, graph: Graph) -> Found:
        sites: list[Site] = []
        refusals: list[Refusal] = []
        for node in graph.layers():
            layer = graph.layer_as(node, ops.Attention)
            if layer is None:
                continue
            if reason := _refusal(graph, node, layer):
                refusals.append(Refusal(self.name, node.name, reason))
                continue
            variants = [each for each in _variants() if _divides(graph, node, each)]
            sites += [self._site(graph, node, each) for each in variants]
            if not variants:
                queries, keys, _ = (dimensions(graph, each) for each in _inputs(node))
                reason = f"2x2 pixels do not divide {queries} queries or {keys} keys, or leave too few"
                refusals.append(Refusal(self.name, node.name, reason))
        return Found(tuple(sites), tuple(refusals))

    def _site(self, graph: Graph, node: fx.Node, pooled: Pooled) -> Site:
        part = _part(graph, node, pooled)
        queries, keys, _ = (dimensions(graph, each) for each in _inputs(node))
        reason = (
            f"every one of {queries} queries is compared with every one of {keys} keys: on means of "
            f"{pooled.by}x{pooled.by} pixels there are {pooled.by**2}x fewer {pooled.what}"
        )
        source, _ = region(graph, [each.name for each in part.layers])
        return Site(self.name, (node.name,), source, part.layers[-1].name, self.needs, reason, pooled)

    def apply(self, graph: Graph, site: Site) -> Graph:
        node, pooled = graph.node(site.layers[0]), site.settings_as(Pooled)
        layer = graph.layer_as(node, ops.Attention)
        if layer is None or _refusal(graph, node, layer) or not _divides(graph, node, pooled):
            raise Unsupported(f"{node.name} is not attention between maps whose {pooled.what} can be pooled")
        part = _part(graph, node, pooled)
        sources = [each.name for each in (*part.pooled, *part.as_given)]
        return edit.replace(graph, sources, part.layers[-1].name, _block(graph, node, part, pooled))


def _variants() -> list[Pooled]:
    return [*(Pooled("keys and values", ratio) for ratio in RATIOS), Pooled("queries", RATIOS[0])]


def _refusal(graph: Graph, node: fx.Node, layer: ops.Attention) -> str | None:
    if any(len(graph.shape(each)) != 4 for each in node.all_input_nodes):
        return "its tokens are no pixels of a map"
    if layer.bias is not None or layer.mask is not None:
        return "its scores have constants for single pairs of tokens"
    return None


def _divides(graph: Graph, node: fx.Node, pooled: Pooled) -> bool:
    sides = graph.shape(_read(node, pooled)[0])[2:]
    return all(side % pooled.by == 0 and side // pooled.by >= LEAST_SIDE for side in sides)


def _read(node: fx.Node, pooled: Pooled) -> tuple[fx.Node, ...]:
    """The maps that attention reads and that shall have fewer pixels."""
    return tuple(each for index, each in enumerate(_inputs(node)) if _is_pooled(index, pooled))


def _inputs(node: fx.Node) -> tuple[fx.Node, ...]:
    """Attention's queries, keys and values, of which some may be the same."""
    return tuple(each for each in node.args if isinstance(each, fx.Node))


def _is_pooled(index: int, pooled: Pooled) -> bool:
    """Whether attention's input of this number shall have fewer pixels; number 0 are the queries."""
    return (index == 0) == (pooled.what == "queries")


def _part(graph: Graph, node: fx.Node, pooled: Pooled) -> Part:
    read = _read(node, pooled)
    others = tuple(dict.fromkeys(each for index, each in enumerate(_inputs(node)) if not _is_pooled(index, pooled)))
    sources = tuple(dict.fromkeys(_before_projection(graph, node, each, read) for each in read))
    layers = needed(node, {*sources, *others})
    if pooled.what == "queries":
        layers += _projection_behind(graph, node)
    return Part(sources, tuple(layers), others)


def _before_projection(graph: Graph, node: fx.Node, value: fx.Node, read: Sequence[fx.Node]) -> fx.Node:
    """The map before the 1x1 convolution that computes `value`, if only `read` needs it; else `value`."""
    projected = producer(value) if _is_part_of_channels(graph, value) else value
    alone = set(projected.users) <= {*read, node} and all(set(each.users) <= {node} for each in read)
    projection = host(graph, projected) or projected  # its batch norm lies between
    return producer(projection) if alone and is_pointwise(graph, projection) else value


def _is_part_of_channels(graph: Graph, node: fx.Node) -> bool:
    layer = graph.layer_as(node, ops.Slice)
    return layer is not None and layer.dim == 1


def is_pointwise(graph: Graph, node: fx.Node) -> bool:
    """Whether a layer is a 1x1 convolution of stride 1 with weights of its own."""
    layer = graph.layer_as(node, nn.Conv2d)
    plain = layer is not None and (layer.kernel_size, layer.stride, pair(layer.padding)) == ((1, 1), (1, 1), (0, 0))
    return plain and edit.shared_with(graph, node) is None


def _projection_behind(graph: Graph, node: fx.Node) -> list[fx.Node]:
    """The layers up to the 1x1 convolution that alone reads attention's result, and its batch norm; else none."""
    run = tail(graph, node)
    reader = only_consumer(run[-1] if run else node)
    if reader is None or not is_pointwise(graph, reader):
        return []
    return [*run, reader, *tail(graph, reader)]


def _block(graph: Graph, attention: fx.Node, part: Part, pooled: Pooled) -> fx.GraphModule:
    """The part's layers behind a pooling; its inputs are the maps to be pooled, then those as they are."""
    root, block = nn.Module(), fx.Graph()

    def add(name: str, layer: nn.Module, *arguments: fx.Node) -> fx.Node:
        root.add_module(name, layer)
        return block.call_module(name, arguments)

    inputs = [block.placeholder(f"x{index}") for index in range(len(part.pooled) + len(part.as_given))]
    small = {
        node: add(f"pool{index}", nn.AvgPool2d(pooled.by), inputs[index]) for index, node in enumerate(part.pooled)
    }
    given = dict(zip(part.as_given, inputs[len(part.pooled) :], strict=True))
    for index, node in enumerate(part.layers):
        arguments = [
            given[each] if node is attention and not _is_pooled(number, pooled) else small[each]
            for number, each in enumerate(_inputs(node))
        ]
        small[node] = add(f"{index}", copy.deepcopy(graph.module.get_submodule(str(node.target))), *arguments)
    result = small[part.layers[-1]]
    if pooled.what == "queries":
        _, _, height, width = graph.shape(attention)
        result = add("resize", ops.Resize((height, width)), result)
    block.output(result)
    return fx.GraphModule(root, block)
