"""Attention with fewer heads: those that matter least are removed.

    Given   y = Σ_h O_h A_h(x) (V_h x + b_h) + c,   A_h(x) the softmax of head h, V_h its values, O_h its columns of the
                                                    1x1 convolution behind
    Result  y ≈ the sum without some heads, + Σ O_h b_h over the heads that are left out

The rows of A_h add up to one, so what a head's bias b_h contributes is the same for every pixel and kept exactly. Those
heads leave whose values are least important on the user's images, if that was measured (channels.py), or else those
with the smallest ‖O_h V_h‖, the map that a head applies to what it attends to. Other heads keep their weights.
Where an activation follows attention, the biases are not kept.
Michel et al., "Are Sixteen Heads Really Better than One?", 2019.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from slimseg.errors import Unsupported
from slimseg.graph import edit, ops
from slimseg.graph.fold import host, scale_and_shift, scaled
from slimseg.graph.graph import Graph, only_consumer, producer
from slimseg.graph.region import region
from slimseg.results import Needs, Refusal
from slimseg.techniques.algebra.channelwise import rearranged, tail
from slimseg.techniques.technique import Found, Settings, Site


@dataclass(frozen=True)
class Heads(Settings):
    before: int
    after: int

    @property
    def words(self) -> str:
        return f"{self.before} to {self.after} heads"


@dataclass(frozen=True)
class Projection:
    """Channels of a convolution that attention reads as its queries, keys or values."""

    node: fx.Node
    layer: nn.Conv2d  # with the batch norm behind it, if there is one
    channels: range

    def cut(self, kept: list[int]) -> nn.Conv2d:
        """A convolution that computes only the channels at these positions."""
        result, index = copy.deepcopy(self.layer), torch.tensor([self.channels[each] for each in kept])
        result.out_channels = len(kept)
        result.weight = nn.Parameter(self.layer.weight.detach()[index])
        if self.layer.bias is not None:
            result.bias = nn.Parameter(self.layer.bias.detach()[index])
        return result


@dataclass(frozen=True)
class Block:
    """Attention with the layers around it that have weights for single heads."""

    attention: ops.Attention
    read: tuple[Projection, ...]  # queries, keys and values
    between: tuple[fx.Node, ...]  # activations and other channelwise layers before the convolution behind
    behind: fx.Node


class FewerHeads:
    """Removes heads of attention."""

    name = "heads left out"
    needs: Needs = "images"
    paper = "Michel et al., Are Sixteen Heads Really Better than One?, 2019"
    settings = Heads

    def find(self, graph: Graph) -> Found:
        sites: list[Site] = []
        refusals: list[Refusal] = []
        for node in graph.layers():
            layer = graph.layer_as(node, ops.Attention)
            if layer is None or layer.heads < 2:
                continue
            block = _block(graph, node)
            if isinstance(block, str):
                refusals.append(Refusal(self.name, node.name, block))
            else:
                sites += [self._site(graph, node, block, kept) for kept in _counts(layer.heads)]
        return Found(tuple(sites), tuple(refusals))

    def _site(self, graph: Graph, node: fx.Node, block: Block, kept: int) -> Site:
        heads = block.attention.heads
        convolutions = dict.fromkeys(each.node.name for each in block.read)
        source, _ = region(graph, [*convolutions, node.name, block.behind.name])
        width = len(block.read[0].channels) // heads
        reason = (
            f"{heads} heads of {width} channels compare all pixels: {heads - kept} of them matter less than the others"
        )
        return Site(self.name, (node.name,), source, block.behind.name, self.needs, reason, Heads(heads, kept))

    def apply(self, graph: Graph, site: Site) -> Graph:
        node, heads = graph.node(site.layers[0]), site.settings_as(Heads)
        layer = graph.layer_as(node, ops.Attention)
        block = _block(graph, node) if layer is not None and layer.heads == heads.before else "it has other heads"
        if isinstance(block, str) or not 0 < heads.after < heads.before:
            raise Unsupported(f"{node.name} is not attention with {heads.before} heads that can leave: {block}")
        leaving = _importance(graph, block).argsort(stable=True)[: heads.before - heads.after].tolist()
        sources = [producer(each.node).name for each in block.read]
        return edit.replace(graph, sources, block.behind.name, _without(graph, block, leaving))


def _counts(heads: int) -> list[int]:
    """How many heads may be left: all but one, and half of them."""
    return list(dict.fromkeys((heads - 1, heads // 2)))


def _block(graph: Graph, node: fx.Node) -> Block | str:
    """The layers around attention, or why its heads cannot be removed."""
    layer, between = graph.layer_as(node, ops.Attention), tail(graph, node)
    behind = only_consumer(between[-1] if between else node)
    assert layer is not None
    if any(each is not None and each.shape[-3] > 1 for each in (layer.bias, layer.mask)):
        return "its heads have constants of their own"
    convolution = graph.layer_as(behind, nn.Conv2d)
    if behind is None or convolution is None or convolution.groups > 1 or edit.shared_with(graph, behind):
        return "no convolution of one group, with weights of its own, alone reads its result"
    if convolution.kernel_size != (1, 1):
        return f"{behind.name}, which reads its result, is no 1x1 convolution"
    read = [_projection(graph, each) for each in node.args if isinstance(each, fx.Node)]
    known = tuple(each for each in read if each is not None)
    if len(known) < len(read):
        return "what it reads does not come directly from convolutions of one group"
    return Block(layer, known, tuple(between), behind)


def _projection(graph: Graph, value: fx.Node) -> Projection | None:
    part = graph.layer_as(value, ops.Slice)
    end = producer(value) if part is not None and part.dim == 1 else value
    node = host(graph, end) or end
    layer, norm = graph.layer_as(node, nn.Conv2d), scale_and_shift(graph, end)
    if layer is None or layer.groups > 1 or edit.shared_with(graph, node):
        return None
    if norm is not None:
        whole = scaled(layer, *norm)
        assert isinstance(whole, nn.Conv2d)
        layer = whole
    channels = range(layer.out_channels)
    return Projection(node, layer, channels[part.start : part.stop : part.step] if part is not None else channels)


def _importance(graph: Graph, block: Block) -> Tensor:
    """(heads,): how much the result depends on each head."""
    values = block.read[2]
    measured = graph.importance.get(values.node.name)
    if measured is not None:
        return measured[torch.tensor(list(values.channels))].reshape(block.attention.heads, -1).sum(1)
    projection = values.cut(list(range(len(values.channels)))).weight.detach().flatten(1)
    behind = _behind(graph, block).weight.detach().flatten(1)
    apart = (block.attention.heads, -1)
    per_head = torch.einsum("ohd,hdi->hoi", torch.unflatten(behind, 1, apart), torch.unflatten(projection, 0, apart))
    return per_head.square().sum((1, 2))


def _behind(graph: Graph, block: Block) -> nn.Conv2d:
    layer = graph.layer_as(block.behind, nn.Conv2d)
    assert layer is not None
    return layer


class _Smaller(nn.Module):
    """Attention with its convolutions, for the values that these read."""

    def __init__(self, read: list[nn.Conv2d], attention: ops.Attention, behind: list[nn.Module]) -> None:
        super().__init__()
        self.queries, self.keys, self.values = read
        self.attention, self.behind = attention, nn.Sequential(*behind)

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        mixed = self.attention(self.queries(queries), self.keys(keys), self.values(values))
        result: Tensor = self.behind(mixed)
        return result


def _without(graph: Graph, block: Block, leaving: list[int]) -> nn.Module:
    old = block.attention
    heads = [head for head in range(old.heads) if head not in leaving]
    read = []
    for each in block.read:
        width = len(each.channels) // old.heads
        read.append(each.cut([head * width + index for head in heads for index in range(width)]))
    attention = ops.Attention(len(heads), old.scale, copy.deepcopy(old.bias), copy.deepcopy(old.mask))
    between = (rearranged(graph.layer(node), _channels(block, heads)) for node in block.between)
    return _Smaller(read, attention, [*between, _narrower(graph, block, heads)])


def _channels(block: Block, heads: list[int]) -> list[int]:
    """The channels of attention's result that belong to these heads."""
    width = len(block.read[2].channels) // block.attention.heads
    return [head * width + index for head in heads for index in range(width)]


def _narrower(graph: Graph, block: Block, heads: list[int]) -> nn.Conv2d:
    """The convolution behind for these heads, with what the others' biases contribute in its own."""
    layer, values = _behind(graph, block), block.read[2]
    kept = _channels(block, heads)
    gone = sorted(set(range(len(values.channels))) - set(kept))
    result, weight = copy.deepcopy(layer), layer.weight.detach()
    result.in_channels = len(kept)
    result.weight = nn.Parameter(weight[:, kept])
    bias = values.cut(gone).bias
    if bias is not None and not block.between:
        constant = weight[:, gone, 0, 0] @ bias.detach()
        result.bias = nn.Parameter(constant if layer.bias is None else layer.bias.detach() + constant)
    return result
